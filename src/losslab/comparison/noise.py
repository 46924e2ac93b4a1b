"""Two noises, never confused: other documents, and other seeds.

Over documents: would other text from the same source say the same of these very models?
Over seeds: would models trained from other seeds say the same on this very text?
Over both: would other seeds on other text? (Documents and not tokens are drawn: tokens of one document depend on one
another.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from losslab.comparison.corpus_scores import CorpusScore
from losslab.comparison.simultaneous import LEVEL

RESAMPLES = 2000
_AT_ONCE = 100


@dataclass(frozen=True)
class Interval:
    """Over documents a percentile bootstrap interval; over seeds that of the table; over both their combination."""

    low: float
    high: float


@dataclass(frozen=True)
class Noises:
    """Intervals of the mean paired difference, in the unit of the metric."""

    mean: float
    documents: Interval
    seeds: Interval
    """NaN with one seed, and where seeds change nothing."""
    both: Interval
    units: int
    """The number of documents (or windows)."""
    of_corpus: bool = False
    """Whether the metric is a function of sums over documents (BLEU), and no mean of theirs."""


class Documents:
    """Resamples of the documents, the same for every comparison.

    Args:
        weight: [U], tokens of each document. Those of which none was scored (`data.max_eval_tokens`) are not drawn.
    """

    def __init__(self, weight: NDArray[np.float64]) -> None:
        random = np.random.default_rng(0)
        self._scored = weight > 0
        weight = weight[self._scored]
        units = len(weight)
        self.weight = weight
        self._counts = np.empty((RESAMPLES, units), dtype=np.float32)
        for first in range(0, RESAMPLES, _AT_ONCE):
            rows = min(_AT_ONCE, RESAMPLES - first)
            drawn = random.integers(units, size=(rows, units)) + np.arange(rows)[:, None] * units
            self._counts[first : first + rows] = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        self._totals = self._counts @ weight

    def compare(self, differences: NDArray[np.float64], *, level: float = LEVEL, spread: bool = True) -> Noises:
        """Args:
        differences: [S, U], of each seed and document the summed difference to the baseline.
        level, spread: of the table's interval (`statistics.Paired`).
        """
        differences = differences[:, self._scored]
        by_seed = (self._counts @ differences.T.astype(np.float64)) / self._totals[:, None]  # [R, S]
        return self._noises(by_seed, differences.sum(axis=1) / self.weight.sum(), level=level, spread=spread)

    def compare_corpus(
        self,
        pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
        score: CorpusScore,
        *,
        level: float = LEVEL,
        spread: bool = True,
    ) -> Noises:
        """The paired bootstrap of a metric of the whole corpus (Koehn 2004): both runs are scored on each resample.

        Args:
            pairs: of each seed the counts [K, U] of the run and of its baseline.
            level, spread: as of `compare`.
        """

        pairs = [(own[:, self._scored], other[:, self._scored]) for own, other in pairs]

        def differences(count: NDArray[Any]) -> NDArray[np.float64]:
            return np.stack([score(count @ own.T) - score(count @ other.T) for own, other in pairs], axis=-1)

        whole = differences(np.ones((1, len(self.weight))))[0]
        found = self._noises(differences(self._counts.astype(np.float64)), whole, level=level, spread=spread)
        return replace(found, of_corpus=True)

    def _noises(
        self, by_seed: NDArray[np.float64], whole: NDArray[np.float64], *, level: float, spread: bool
    ) -> Noises:
        """Differences of each seed on each resample [R, S], and on all documents [S]."""
        seeds = len(whole)
        of_documents = by_seed.mean(axis=1)
        mean = float(whole.mean())
        over_seeds = over_both = Interval(math.nan, math.nan)
        if seeds > 1 and spread:
            half = float(-special.stdtrit(seeds - 1, level / 2) * whole.std(ddof=1)) / math.sqrt(seeds)
            over_seeds = Interval(mean - half, mean + half)
            drawn = np.random.default_rng(1).integers(seeds, size=(RESAMPLES, seeds))
            moved = whole[drawn].mean(axis=1) - mean
            of_both = np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)
            # A bootstrap over few seeds is too short. What other seeds change is made as wide as the interval of seeds.
            wider = half / reach if (reach := _reach(moved, level)) > 0 else 1.0
            half = _reach(of_documents - mean + wider * (of_both - of_documents), level)
            over_both = Interval(mean - half, mean + half)
        return Noises(mean, _interval(of_documents, level), over_seeds, over_both, units=len(self.weight))


def _interval(values: NDArray[np.float64], level: float) -> Interval:
    """The percentiles of a bootstrap at 95%, moved away from the centre for other levels."""
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    centre, factor = float(values.mean()), _stretch(level)
    return Interval(centre + factor * (float(low) - centre), centre + factor * (float(high) - centre))


def _reach(moved: NDArray[np.float64], level: float) -> float:
    """Half the width of an interval that is symmetric about zero."""
    return float(np.quantile(np.abs(moved), 1 - LEVEL)) * _stretch(level)


def _stretch(level: float) -> float:
    """Factor from the 95% percentiles of a normal to others: the far tails of so few resamples are too noisy."""
    return float(special.ndtri(level / 2) / special.ndtri(LEVEL / 2))
