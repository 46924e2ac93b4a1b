"""Files of which line n of one goes with line n of the others, as parallel texts are published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

from losslab.data.opened import lines_of, open_text
from losslab.errors import UserError


def aligned_lines(files: Sequence[Path], encoding: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line, from 1, and its text in every file, without the line's end.

    Lines end at a newline alone: other characters that Unicode calls ends of lines stand inside sentences of many
    published files, and would shift the rest.

    Raises:
        UserError: for files that cannot be read, and for one that has more lines than another.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(open_text(file, encoding, newline="\n")) for file in files]
        together = zip_longest(*(lines_of(file, text) for file, text in zip(files, opened, strict=True)))
        for number, lines in enumerate(together, start=1):
            there = [line for line in lines if line is not None]
            if len(there) < len(files):
                raise _unequal(files, number, lines, together)
            yield number, [_bare(line) for line in there]


def _unequal(
    files: Sequence[Path], number: int, lines: Sequence[str | None], rest: Iterator[tuple[str | None, ...]]
) -> UserError:
    """The sentence for a line that another file lacks."""
    at = next(i for i, line in enumerate(lines) if line is not None)
    longer, shorter = files[at], files[lines.index(None)]
    whole = number + sum(each[at] is not None for each in rest)
    return UserError(
        f"{longer} has {whole:,} lines and {shorter} has {number - 1:,}: line {number:,} of {longer.name} has no "
        "counterpart; line n of one is the translation of line n of the other, so look for a line that is missing or "
        "was cut in two"
    )


def _bare(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
