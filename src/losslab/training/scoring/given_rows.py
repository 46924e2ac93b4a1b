"""Rows that a person gives for predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from losslab.contracts import ColumnKind
from losslab.data.cells import parse_row
from losslab.errors import UserError

Row = Mapping[str, Any]


class Predictor(Protocol):
    """Predicts rows."""

    names: dict[str, str]
    """The task's name of each column that it reads → the file's."""
    batch_size: int
    """Rows that are read at once."""

    @property
    def path_columns(self) -> Sequence[str]:
        """The file's names of columns whose cells are paths."""
        ...

    def __call__(self, rows: Sequence[Any], *, first: int = 1) -> list[dict[str, Any]]:
        """A dict for each row, with `predicted`.

        Args:
            first: the number of the first row, for messages.

        Raises:
            UserError: naming the row that cannot be used.
        """
        ...

    def rows_of(self, path: Path) -> list[dict[str, Any]] | None:
        """The rows of a file in a form of the task's own; None of a table."""
        ...

    def words_of(self, row: Row) -> list[str]:
        """The words of a row that have tags; none for other tasks."""
        ...

    def notes(self) -> list[str]:
        """Sentences for people about the rows so far."""
        ...


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
