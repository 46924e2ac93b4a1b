"""One text a file, in a folder named after its class, as IMDb's reviews are published: `train/pos/0_9.txt`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from losslab.data.opened import lines_of, open_text
from losslab.data.table_format import Format, Row, Skipped, TableFormat

_COLUMNS = ["text", "label"]


def names(path: Path, form: TableFormat) -> list[str]:
    """The same for every file."""
    return list(_COLUMNS)


def rows(path: Path, columns: list[str], form: TableFormat, skipped: Skipped) -> Iterator[tuple[str, Row]]:
    """The one row of a file."""
    with open_text(path, form.encoding) as file:
        cells = {"text": "".join(lines_of(path, file)), "label": path.absolute().parent.name}
    yield "line 1", {column: cells[column] for column in columns}


CLASS_FOLDERS = Format((".txt",), names, rows)
