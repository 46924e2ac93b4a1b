"""Rows that a person gives for predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from losslab.contracts import ColumnKind
from losslab.data.cells import parse_row
from losslab.errors import UserError

Row = Mapping[str, Any]


def parsed(
    row: Row | str,
    number: int,
    names: Mapping[str, str],
    columns: Mapping[str, ColumnKind],
    *,
    frames: Callable[[Any], Any] = lambda cell: cell,
) -> dict[str, Any]:
    """The cells of a row that are read, by the task's names.

    Args:
        row: cells by the columns' names in the file; or, where there is one column alone, its cell.
        number: of the row, for messages.
        names: the task's name of each column that is read → the file's.
        columns: the task's.
        frames: reads the cells of columns of frames.

    Raises:
        UserError: naming the row and the column that cannot be used.
    """
    if isinstance(row, str):
        if len(names) != 1:
            raise UserError(f"row {number} is one text, and the columns are {', '.join(names.values())}")
        row = dict.fromkeys(names.values(), row)
    if missing := [column for column in names.values() if column not in row]:
        raise UserError(f"row {number} has no column {missing[0]!r}, but {', '.join(map(repr, row)) or 'nothing'}")
    kinds = {name: columns[name] for name in names}
    try:
        cells = {name: row[column] for name, column in names.items()}
        return parse_row(
            {name: frames(cell) if kinds[name] == "frames" else cell for name, cell in cells.items()}, kinds
        )
    except ValueError as error:
        raise UserError(f"row {number} cannot be used: {error}") from None
