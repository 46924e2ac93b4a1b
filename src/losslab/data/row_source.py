"""The contract of a source of rows: what `data.source` may hold, and what files of rows are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from losslab.contracts import Task
from losslab.data.table_format import Row, Skipped


class RowSource(ABC):
    """Rows of named columns, and the splits that they came in.

    A source of one's own is a class that derives from this, and a yaml whose `source` has it as its `_target_`.
    """

    by_line = False
    """Whether rows are the lines of files, so that another file goes with one of them line by line."""

    def check(self) -> None:
        """Refuse what cannot work before any row is read. Raises UserError. Default: nothing."""
        return

    def check_task(self, task: Task) -> None:
        """Refuse a task that cannot use what this source alone gives. Raises UserError naming one that does. Default:
        nothing."""
        return

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """`train`, and those of val and test that it brings along; the others are taken out of train."""

    @abstractmethod
    def columns(self, split: str) -> list[tuple[str, list[str]]]:
        """Each place of a split (a file, a table) and the columns that it has. Reads as little as it can."""

    @abstractmethod
    def rows(self, split: str, columns: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        """The cells of these columns, row by row, each with its place (`train.csv: line 7`).

        A cell is text, a number, a list of these, an array of frames, or None; what the task makes of it is said by its
        `ColumnKind`.

        Args:
            skipped: counts what is passed over (`blank lines`).
        """

    @abstractmethod
    def hashes(self, memory: Path | None) -> dict[str, str]:
        """Dotted key (`data.source`) → SHA-256 of all that decides the rows.

        Args:
            memory: the folder where hashes can be kept between runs (`losslab.data.stamps.kept`), or None.
        """

    @abstractmethod
    def told(self) -> str:
        """One line for people: what is read."""

    def over(self, files: Any, names: Mapping[str, str], context: int) -> RowSource | None:
        """This source over the rows of data.path, for one that adds to their cells. Default: None, it has rows of its
        own.

        Args:
            files: `losslab.data.row_files.FileRows`, the rows of data.path.
            names: the task's name of a column → the files', where they differ.
            context: the longest sequence of inputs.
        """
        return None

    def group(self) -> str | None:
        """A column whose equal cells stay in one split where data.group names none. Default: none."""
        return None

    def artifacts(self) -> dict[str, str]:
        """Contents of `DataInfo.artifacts`, once all rows were read: what a prediction needs. Default: none."""
        return {}
