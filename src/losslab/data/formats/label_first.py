"""Lines of a label, a space and a text, as TREC's questions are published: `NUM:date When was Ozzy Osbourne born ?`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from losslab.data.opened import lines_of, open_text
from losslab.data.table_format import Format, Row, Skipped, TableFormat
from losslab.errors import UserError

_COLUMNS = ["label", "coarse", "text"]
"""The whole label; its part before the first colon; the rest of the line."""


def names(path: Path, form: TableFormat) -> list[str]:
    """The same for every file."""
    return list(_COLUMNS)


def rows(path: Path, columns: list[str], form: TableFormat, skipped: Skipped) -> Iterator[tuple[str, Row]]:
    """A row for each line."""
    with open_text(path, form.encoding) as file:
        for number, line in enumerate(lines_of(path, file), start=1):
            if not line.strip():
                skipped["blank lines"] += 1
                continue
            label, _, text = line.strip().partition(" ")
            if not text.strip():
                raise UserError(f"{path}: line {number} has no text behind its label {label!r}: LABEL TEXT")
            cells = {"label": label, "coarse": label.partition(":")[0], "text": text.strip()}
            yield f"line {number}", {column: cells[column] for column in columns}


LABEL_FIRST = Format((".label",), names, rows)
