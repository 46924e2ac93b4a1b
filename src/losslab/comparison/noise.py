"""Two noises, never confused: other documents, and other seeds.

Over documents: would other text from the same source say the same of these very models?
Over seeds: would models trained from other seeds say the same on this very text?
Over both: would other seeds on other text? (Documents and not tokens are drawn: tokens of one document depend on one
another.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2000
_AT_ONCE = 100


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap 95% interval; over seeds, made wider for being few (`_for_few`)."""

    low: float
    high: float


@dataclass(frozen=True)
class Noises:
    """Intervals of the mean paired difference, in the unit of the yardstick."""

    mean: float
    documents: Interval
    seeds: Interval
    """NaN with one seed."""
    both: Interval
    units: int
    """How many documents (or windows) there are."""


class Documents:
    """Resamples of the documents, the same for every comparison.

    Args:
        weight: [U], tokens of each document.
    """

    def __init__(self, weight: NDArray[np.float64]) -> None:
        random = np.random.default_rng(0)
        units = len(weight)
        self.weight = weight
        self._counts = np.empty((RESAMPLES, units), dtype=np.float32)
        for first in range(0, RESAMPLES, _AT_ONCE):
            rows = min(_AT_ONCE, RESAMPLES - first)
            drawn = random.integers(units, size=(rows, units)) + np.arange(rows)[:, None] * units
            self._counts[first : first + rows] = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        self._totals = self._counts @ weight

    def compare(self, differences: NDArray[np.float64]) -> Noises:
        """Args:
        differences: [S, U], of each seed and document the summed difference to the baseline.
        """
        seeds = len(differences)
        drawn = np.random.default_rng(1).integers(seeds, size=(RESAMPLES, seeds))
        by_seed = (self._counts @ differences.T.astype(np.float64)) / self._totals[:, None]  # [R, S]
        # Only what other seeds change is made wider.
        wider = _for_few(seeds)
        of_documents = by_seed.mean(axis=1)
        of_both = np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)
        whole = differences.sum(axis=1) / self.weight.sum()
        nothing = Interval(math.nan, math.nan)
        return Noises(
            mean=float(whole.mean()),
            documents=_interval(of_documents),
            seeds=_interval(whole.mean() + wider * (whole[drawn].mean(axis=1) - whole.mean()))
            if seeds > 1
            else nothing,
            both=_interval(of_documents + wider * (of_both - of_documents)) if seeds > 1 else nothing,
            units=len(self.weight),
        )


def _for_few(seeds: int) -> float:
    """By how much a bootstrap over few seeds is too short: its variance divides by n, not n − 1, and its tails are the
    normal's, not t's. Three seeds: 2.7; ten: 1.2."""
    if seeds < 2:
        return 1.0
    return float(math.sqrt(seeds / (seeds - 1)) * stats.t.ppf(0.975, seeds - 1) / stats.norm.ppf(0.975))


def _interval(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
