"""Names of losses in a comparison, the order in which they stand, and the folder where it is written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from losslab.comparison.runs.contenders import Contender, natural
from losslab.config.nearest import nearest
from losslab.errors import UserError

FOLDER = "comparison"
BEST_FIRST, BY_NAME = "value", "name"
_LONGEST = 120


def parse_labels(texts: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """`LOSS=NAME`, several with commas between them → loss → name.

    Args:
        known: the losses' own labels, which may hold spaces and `=` themselves.

    Raises:
        UserError: for a loss that is not there, and for two losses of one name.
    """
    found: dict[str, str] = {}
    for text in texts:
        starts = re.compile("|".join(rf"(?:^|,)\s*{re.escape(label)}\s*=" for label in sorted(known, key=len)[::-1]))
        marks = list(starts.finditer(text))
        if not marks or marks[0].start() != 0:
            wrong, equals, _ = text.partition("=")
            if not equals:
                raise UserError(f"--labels {text}: write LOSS=NAME, such as {known[0]}=MINE")
            raise UserError(f"--labels {text}: there is no loss {wrong!r} here: {nearest(wrong, known)}")
        ends = [*(mark.start() for mark in marks[1:]), len(text)]
        for mark, end in zip(marks, ends, strict=True):
            loss = mark.group().strip(" ,")[:-1].strip()
            name = " ".join(text[mark.end() : end].split())
            if not name:
                raise UserError(f"--labels {text}: {loss} is given no name; write {loss}=NAME")
            found[loss] = name
    shown = [found.get(label, label) for label in known]
    if twice := next((name for name in shown if shown.count(name) > 1), None):
        raise UserError(f"--labels: two losses would be called {twice!r}")
    return found


def rename(contenders: Sequence[Contender], labels: Mapping[str, str]) -> None:
    for contender in contenders:
        contender.label = labels.get(contender.label, contender.label)


def positions(order: str, contenders: Sequence[Contender], labels: Mapping[str, str]) -> dict[str, int] | None:
    """Label → its place; None where the best comes first.

    Args:
        order: `value`, `name`, or labels (old or new ones) with commas between, the first first; those left out follow.
        contenders: renamed by `labels`.

    Raises:
        UserError: for a label that is not there.
    """
    if order == BEST_FIRST:
        return None
    known = [c.label for c in contenders]
    first: list[str] = []
    rest = order if order != BY_NAME else ""
    spelled = {**labels, **{label: label for label in known}}
    while rest := rest.strip(" ,"):
        # Longest first, for a name may begin another's, or hold a comma.
        begun = [name for name in sorted(spelled, key=len)[::-1] if re.match(rf"{re.escape(name)}\s*(,|$)", rest)]
        if not begun:
            wrong = rest.partition(",")[0]
            near = nearest(wrong, known)
            raise UserError(f"--order: there is no loss {wrong!r} here ({near}); value and name are orders, too")
        first.append(spelled[begun[0]])
        rest = rest[len(begun[0]) :]
    ordered = dict.fromkeys([*first, *sorted(known, key=natural)])
    return {label: place for place, label in enumerate(ordered)}


def target_of(source: Path, choices: Mapping[str, object]) -> Path:
    """The folder of a comparison of a folder or a table: another question has a folder of its own.

    Args:
        choices: option → what was chosen, where it is not the default, in the order of the name: a text, a number, a
            list of them, or True. Of `metric` and `where` the values alone are in the name.
    """
    parts = [FOLDER]
    for option, value in choices.items():
        values = value if isinstance(value, list) else [value]
        for one in values:
            text = f"{one:g}" if isinstance(one, float) else str(one)
            parts.append(option if one is True else text if option in ("metric", "where") else f"{option}={text}")
    whole = "-".join(parts)
    name = re.sub(r"[^\w.=,-]+", "-", whole)
    if len(name) > _LONGEST:  # a name has 255 bytes at most, and a where may be long
        name = f"{name[:_LONGEST]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return source / name if source.is_dir() else source.with_name(f"{source.stem}-{name}")
