"""Columns of text as tokens: each cut to the context, or those that become one sequence cut together."""

from __future__ import annotations

from collections.abc import Sequence

from losslab.data.tables import Row
from losslab.data.tokenizer import Tokenizer
from losslab.errors import UserError

Tokens = dict[str, list[list[int]]]
"""Column → the tokens of each row."""


def encode_texts(
    names: Sequence[str],
    joined: Sequence[str],
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    context: int,
    cut: str = "longest",
    *,
    whole: bool = False,
) -> tuple[Tokens, int]:
    """Each column's tokens, the end of text after them, and how many sequences were longer than the context.

    A text alone is cut at the context, its end with it. Joined texts have at most `context` tokens together: the
    longest are cut first, and each keeps its end, which divides it from the next; or see `Task.cut`.

    Args:
        names: the columns of text.
        joined: those of them that become one sequence.
        cut: `Task.cut`.
        whole: texts that are not joined keep all of their tokens.

    Raises:
        UserError: for text without a token.
    """
    end = [] if tokenizer.end is None else [tokenizer.end]
    found = {name: [ids for ids, _ in tokenizer.encode([row[name] for row in rows])] for name in names}
    for name in names:
        alone = name not in joined or cut == "longest"
        if not end and alone and not all(found[name]):
            raise UserError(f"{name} holds text that the tokenizer gives no token, and it has no end of text")
    longer = 0
    for name in names:
        if name not in joined:
            ended = [[*ids, *end] for ids in found[name]]
            longer += sum(len(ids) > context for ids in ended)
            found[name] = ended if whole else [ids[:context] for ids in ended]
    together = [name for name in names if name in joined]
    if together and cut != "longest":
        for i in range(len(rows)):
            pieces, is_longer = _cut_running([found[name][i] for name in together], end, context + 1, cut)
            longer += is_longer
            for name, piece in zip(together, pieces, strict=True):
                found[name][i] = piece
    elif together:
        room = context - len(together) * len(end)
        if room < len(together):
            raise UserError(f"data.context={context} has no room for {' and '.join(together)} and the ends of both")
        for i in range(len(rows)):
            lengths = [len(found[name][i]) for name in together]
            longer += sum(lengths) > room
            for name, kept in zip(together, longest_cut(lengths, room), strict=True):
                found[name][i] = [*found[name][i][:kept], *end]
    return found, longer


def _cut_running(pieces: list[list[int]], end: list[int], room: int, side: str) -> tuple[list[list[int]], bool]:
    """The pieces of one running text, the end of text before and after all of it, cut at one side; whether they were
    too long."""
    pieces = [end + pieces[0], *pieces[1:]]
    pieces[-1] = pieces[-1] + end
    surplus = sum(map(len, pieces)) - room
    if surplus <= 0:
        return pieces, False
    for i in range(len(pieces)) if side == "left" else reversed(range(len(pieces))):
        dropped = min(surplus, len(pieces[i]))
        pieces[i] = pieces[i][dropped:] if side == "left" else pieces[i][: len(pieces[i]) - dropped]
        surplus -= dropped
    return pieces, True


def longest_cut(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens each sequence keeps, so that together they have at most `room`: the longest are cut first."""
    kept, left = [0] * len(lengths), room
    for done, i in enumerate(sorted(range(len(lengths)), key=lambda i: (lengths[i], -i))):
        kept[i] = min(lengths[i], left // (len(lengths) - done))
        left -= kept[i]
    return kept
