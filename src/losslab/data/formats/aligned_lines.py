"""Two files of which line n of one goes with line n of the other, as parallel texts are published."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from losslab.data.opened import lines_of, open_text
from losslab.errors import UserError


def aligned_lines(first: Path, second: Path, encoding: str) -> Iterator[tuple[int, str, str]]:
    """The number of each line, from 1, and its text in both files, without the line's end.

    Lines end at a newline alone: other characters that Unicode calls ends of lines stand inside sentences of many
    published files, and would shift the rest.

    Raises:
        UserError: for files that cannot be read, and for one that has more lines than the other.
    """
    with open_text(first, encoding, newline="\n") as left, open_text(second, encoding, newline="\n") as right:
        pairs = zip_longest(lines_of(first, left), lines_of(second, right))
        for number, (one, other) in enumerate(pairs, start=1):
            if one is None or other is None:
                longer, shorter = (first, second) if other is None else (second, first)
                more = sum(1 for _ in pairs)
                raise UserError(
                    f"{longer} has {number + more:,} lines and {shorter} has {number - 1:,}: line {number:,} of "
                    f"{longer.name} has no counterpart; line n of one is the translation of line n of the other, so "
                    "look for a line that is missing or was cut in two"
                )
            yield number, _bare(one), _bare(other)


def _bare(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
