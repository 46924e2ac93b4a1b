"""Budgets of a search (hydra/sweeper=optuna), and how each loss spent its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from losslab.comparison.runs.contenders import Contender


@dataclass(frozen=True)
class Searches:
    """The trials of each loss, by label: status → how many."""

    trials: dict[str, Counter[str]]

    @property
    def are_equal(self) -> bool:
        return len({spent.total() for spent in self.trials.values()}) < 2

    def __str__(self) -> str:
        """`focal 12 trials (10 completed, 2 pruned); …`."""
        told = []
        for label, spent in self.trials.items():
            shares = ", ".join(f"{spent[status]} {status}" for status in sorted(spent))
            told.append(f"{label} {spent.total()} trial{'s' * (spent.total() != 1)} ({shares})")
        return "; ".join(told)


def searches_of(contenders: Sequence[Contender]) -> Searches | None:
    """The budgets of losses that were all searched; None where a run is of no trial.

    A trial of several seeds is completed where all of its runs are, and otherwise what the first other one is.
    """
    trials = {contender.label: _spent(contender) for contender in contenders}
    return None if any(spent is None for spent in trials.values()) else Searches({k: v for k, v in trials.items() if v})


def _spent(contender: Contender) -> Counter[str] | None:
    statuses: dict[tuple[str, int], str] = {}
    for run in contender.tried:
        trial = run.record.trial
        if not trial:
            return None
        key = (trial["study"], trial["number"])
        if statuses.get(key, "completed") == "completed":
            statuses[key] = run.record.status
    return Counter(statuses.values())
