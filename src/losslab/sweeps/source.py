"""Where the local launcher takes its runs from. No torch here."""

from __future__ import annotations

from typing import Protocol

from losslab.records import DONE, Record
from losslab.sweeps.followed_run import Run

OVER = (*DONE, "pruned")
"""Statuses of a record after which a launcher has nothing to do."""


class Source(Protocol):
    """Hands out runs whenever there is room for one."""

    @property
    def expected(self) -> int:
        """The number of runs in all."""

    @property
    def is_spent(self) -> bool:
        """Whether no further run comes, whatever becomes of the others."""

    def next(self) -> list[Run]:
        """Runs to start or, where they are done, to count; empty where none comes just now."""

    def validated(self, run: Run, step: int, value: float) -> str:
        """Take in a validation; returns the reason why the run is to end, or nothing."""

    def unneeded(self, run: Run) -> str:
        """The reason why a run that has not ended need not go on, or nothing."""

    def ended(self, run: Run, record: Record) -> None:
        """Take in what became of a run."""


class Listed:
    """Runs that are all known before the first one starts."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs
        self.expected = len(runs)
        self.is_spent = False

    def next(self) -> list[Run]:
        self.is_spent = True
        runs, self._runs = self._runs, []
        return runs

    def validated(self, run: Run, step: int, value: float) -> str:
        return ""

    def unneeded(self, run: Run) -> str:
        return ""

    def ended(self, run: Run, record: Record) -> None:
        """Nothing follows from it."""
