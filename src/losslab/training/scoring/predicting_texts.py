"""Texts for rows, by a network whose task writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losslab.contracts import DataInfo
from losslab.data.tables import SUFFIXES, suffix_of
from losslab.errors import UserError
from losslab.training.generation.prediction import ForwardContext
from losslab.training.network import Network
from losslab.training.scoring.given_rows import Row, parsed
from losslab.training.scoring.translating import Translator


class TextPredictor:
    """Writes the target of rows, by the search of the run's task: `TextPredictor(…)([{"source": "Guten Morgen."}])`.

    Args:
        network, info, data, forward_context: as of `Translator`; the data's `columns` name the file's columns.

    Raises:
        UserError: for a task that reads no source.
    """

    def __init__(
        self, network: Network, info: DataInfo, data: Mapping[str, Any], forward_context: ForwardContext
    ) -> None:
        task = network.task
        self.batch_size = int(data["val_batch_size"])
        self._translate = Translator(network, info, data, forward_context, batch=self.batch_size)
        self._columns = task.columns
        named = data.get("columns") or {}
        self.names = {key: named.get(key, key) for key in task.columns if key not in task.predicted}
        """The task's name of the column that it reads → the file's."""

    def __call__(self, rows: Sequence[Row | str], *, first: int = 1) -> list[dict[str, Any]]:
        """A dict for each row: `predicted`, a text; an empty one for an empty source.

        Args:
            rows: cells by the columns' names in the file, the target's left out or not; or sources alone.
            first: the number of the first row, for messages.

        Raises:
            UserError: naming the row and the column that cannot be used.
        """
        (source,) = self.names
        found = [parsed(row, number, self.names, self._columns) for number, row in enumerate(rows, start=first)]
        return [{"predicted": text} for text in self._translate([cells[source] for cells in found])]

    @property
    def path_columns(self) -> list[str]:
        """No columns of paths."""
        return []

    def rows_of(self, path: Path) -> list[dict[str, Any]] | None:
        """None: rows stand in tables. Raises UserError for a file of another kind, such as lines of text."""
        if path.is_file() and suffix_of(path) not in SUFFIXES:
            raise UserError(
                f"{path} is no table ({', '.join(SUFFIXES)}): losslab translate RUN {path.name} writes a line for each "
                "line of a text"
            )
        return None

    def words_of(self, row: Row) -> list[str]:
        """No words that have tags."""
        return []

    def notes(self) -> list[str]:
        """Sentences for people about the rows so far."""
        return self._translate.notes()
