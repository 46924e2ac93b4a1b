"""Paired statistics over shared seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
SEEDS_FOR_A_CLAIM = 6
"""With n pairs the smallest two-sided sign-flip p is 2 / 2ⁿ: below six it cannot reach 0.05."""
_EXACT_UP_TO = 16
_RESAMPLES = 9999


@dataclass(frozen=True)
class Paired:
    """Differences to the baseline on shared seeds."""

    n: int
    mean: float
    low: float
    high: float
    """The plain paired-t 95% interval; NaN with one pair."""
    p_t: float
    """Two-sided paired t; NaN with one pair."""
    p_sign_flip: float
    """Two-sided exact sign-flip permutation; NaN with one pair."""


def paired(differences: Sequence[float]) -> Paired:
    """Statistics of the differences, one a seed."""
    values = np.asarray(differences, dtype=np.float64)
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Paired(n, mean, math.nan, math.nan, math.nan, math.nan)
    error = float(stats.sem(values))
    if error == 0.0:  # the same difference in every seed: t is infinite, or 0 / 0
        return Paired(n, mean, mean, mean, 1.0 if mean == 0 else 0.0, sign_flip(values))
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    return Paired(n, mean, mean - half, mean + half, float(stats.ttest_1samp(values, 0.0).pvalue), sign_flip(values))


def sign_flip(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of the mean under all 2ⁿ sign changes (random ones beyond 16 pairs)."""
    values = np.asarray(differences, dtype=np.float64)
    result = stats.permutation_test(
        (values,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(values) if len(values) <= _EXACT_UP_TO else _RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given; NaN stays NaN and does not count (Holm 1979)."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def verdict(result: Paired, p_adjusted: float, *, higher_is_better: bool) -> str:
    """better, worse or undecided, from the Holm-adjusted paired-t p; a word stands alone only from six seeds on, and
    only where the sign-flip p agrees."""
    if math.isnan(p_adjusted) or p_adjusted >= LEVEL:
        return "undecided"
    word = "better" if (result.mean > 0) == higher_is_better else "worse"
    if result.n < SEEDS_FOR_A_CLAIM:
        return f"{word} ({result.n} seeds: a hint, not a claim)"
    return word if result.p_sign_flip < LEVEL else "undecided"
