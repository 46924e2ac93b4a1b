"""Columns of text as tokens: each cut to the context, or those that become one sequence cut together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from losslab.data.tables import Row
from losslab.data.tokenizer import Tokenizer
from losslab.errors import UserError


class Tokens(NamedTuple):
    """The tokens of a column of rows."""

    values: NDArray[np.int32]
    """Tokens of all rows, one after the other."""
    counts: NDArray[np.int64]
    """[N] tokens of each."""

    def part(self, first: NDArray[np.int64] | int, counts: NDArray[np.int64]) -> Tokens:
        """`counts` tokens of each row, from the one whose number in the row is `first`."""
        if np.array_equal(counts, self.counts):
            return self
        begins = np.cumsum(self.counts) - self.counts + first
        shifts = begins - (np.cumsum(counts) - counts)
        return Tokens(self.values[np.arange(counts.sum()) + np.repeat(shifts, counts)], counts)

    def with_end(self, end: int | None, *, before: bool = False) -> Tokens:
        """One more token behind those of each row, or before them; as they are where it is None."""
        if end is None:
            return self
        counts = self.counts + 1
        at = np.cumsum(counts) - (counts if before else 1)
        values = np.full(len(self.values) + len(counts), end, dtype=np.int32)
        inside = np.ones(len(values), dtype=bool)
        inside[at] = False
        values[inside] = self.values
        return Tokens(values, counts)


def encode_texts(
    names: Sequence[str],
    joined: Sequence[str],
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    context: int,
    cut: str = "longest",
    *,
    whole: bool = False,
) -> tuple[dict[str, Tokens], int]:
    """Each column's tokens, the end of text after them, and how many sequences were longer than the context.

    A text alone is cut at the context, its end with it; one that begins with a token of its own (`Tokenizer.begin`)
    keeps both, as the model was trained on them. Joined texts have at most `context` tokens together: the longest are
    cut first, and each keeps its end, which divides it from the next; or see `Task.cut`.

    Args:
        names: the columns of text.
        joined: those of them that become one sequence.
        cut: `Task.cut`.
        whole: texts that are not joined keep all of their tokens.

    Raises:
        UserError: for text without a token.
    """
    begin, end = tokenizer.begin, tokenizer.end
    found: dict[str, Tokens] = {}
    for name in names:
        ids, counts = tokenizer.encode_ids([row[name] for row in rows])
        found[name] = Tokens(ids.astype(np.int32), counts)
        alone = name not in joined or cut == "longest"
        if end is None and alone and not counts.all():
            raise UserError(f"{name} holds text that the tokenizer gives no token, and it has no end of text")
    longer = 0
    for name in names:
        if name not in joined:
            ended = found[name].with_end(begin, before=True).with_end(end)
            longer += int((ended.counts > context).sum())
            found[name] = ended if whole else _cut(ended, context, None if begin is None else end)
    if together := [name for name in names if name in joined]:
        texts = [found[name] for name in together]
        shorter, more = (
            _cut_longest(together, texts, begin, end, context)
            if cut == "longest"
            else _cut_running(texts, end, context, cut)
        )
        found |= dict(zip(together, shorter, strict=True))
        longer += more
    return found, longer


def _cut(ended: Tokens, context: int, end: int | None) -> Tokens:
    """Texts up to the context; where there is an `end`, it is the last token of those that are cut, too."""
    kept = ended.part(0, np.minimum(ended.counts, context))
    if end is not None:
        kept.values[np.cumsum(kept.counts)[ended.counts > context] - 1] = end
    return kept


def _cut_longest(
    names: Sequence[str], texts: Sequence[Tokens], begin: int | None, end: int | None, context: int
) -> tuple[list[Tokens], int]:
    """Texts that become one sequence, each with its end, the longest cut first; how many rows were longer."""
    room = context - (0 if end is None else len(texts)) - (begin is not None)
    if room < len(texts):
        raise UserError(f"data.context={context} has no room for {' and '.join(names)} and the ends of both")
    kept = np.stack([text.counts for text in texts])
    too_long = np.flatnonzero(kept.sum(axis=0) > room)
    for row in too_long.tolist():
        kept[:, row] = longest_cut(kept[:, row].tolist(), room)
    cut = [text.part(0, counts).with_end(end) for text, counts in zip(texts, kept, strict=True)]
    return [cut[0].with_end(begin, before=True), *cut[1:]], len(too_long)


def _cut_running(texts: Sequence[Tokens], end: int | None, context: int, side: str) -> tuple[list[Tokens], int]:
    """The pieces of one running text, the end of text before and after all of it, cut at one side so that a token
    more than the context is left; how many rows were longer."""
    pieces = [texts[0].with_end(end, before=True), *texts[1:]]
    pieces[-1] = pieces[-1].with_end(end)
    surplus = np.maximum(sum(piece.counts for piece in pieces) - (context + 1), 0)
    longer = int(np.count_nonzero(surplus))
    for i in range(len(pieces)) if side == "left" else reversed(range(len(pieces))):
        dropped = np.minimum(surplus, pieces[i].counts)
        surplus = surplus - dropped
        pieces[i] = pieces[i].part(dropped if side == "left" else 0, pieces[i].counts - dropped)
    return pieces, longer


def longest_cut(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens each sequence keeps, so that together they have at most `room`: the longest are cut first."""
    kept, left = [0] * len(lengths), room
    for done, i in enumerate(sorted(range(len(lengths)), key=lambda i: (lengths[i], -i))):
        kept[i] = min(lengths[i], left // (len(lengths) - done))
        left -= kept[i]
    return kept
