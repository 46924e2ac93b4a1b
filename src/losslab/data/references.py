"""Further translations of val and test, beside the target: read where texts are judged, and by nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from losslab.contracts import Task
from losslab.data.row_reading import Reading
from losslab.data.row_source import RowSource
from losslab.errors import UserError

VARYING = -1
"""Number of references where texts differ in it."""


@dataclass(frozen=True)
class References:
    """Columns of a source that hold further translations.

    Args:
        source: of the rows.
        columns: split → their names.
    """

    source: RowSource
    columns: Mapping[str, Sequence[str]]

    def check(self) -> None:
        """Refuse columns that are not there, before any row is read. Raises UserError."""
        for split, names in self.columns.items():
            for place, there in self.source.columns(split):
                if missing := next((name for name in names if name not in there), None):
                    told = ", ".join(map(repr, there)) or "nothing"
                    raise UserError(f"data.references: {place} has no column {missing!r}, but {told}")

    def read(self, split: str, reading: Reading, task: Task) -> list[list[str]] | None:
        """The further translations of each row that is evaluated, in their order, without empty ones; None: there are
        none of this split.

        Raises:
            UserError: for a cell that is no text.
        """
        return list(self._rows(split, reading, task)) if self.columns.get(split) else None

    def _rows(self, split: str, reading: Reading, task: Task) -> Iterator[list[str]]:
        names = self.columns[split]
        for place, _, cells in reading.parsed(self.source, split, task.columns, Counter(), also=names):
            if wrong := next((name for name in names if not isinstance(cells[name], str | None)), None):
                raise UserError(f"{place} cannot be used: its {wrong} must be text, not {cells[wrong]!r}")
            yield [cells[name] for name in names if cells[name] and cells[name].strip()]

    def count(self, split: str, reading: Reading, task: Task) -> int:
        """References of each text, its target among them; VARYING where texts differ."""
        counts = {1 + len(row) for row in self.read(split, reading, task) or [[]]}
        return counts.pop() if len(counts) == 1 else VARYING
