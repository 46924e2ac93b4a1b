"""Metrics of predicted values, from all of them: exact, and the same however ranks shared them.

With several values a position each metric is the plain mean of those of each value, as scikit-learn's
`uniform_average`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def rmse(predicted: Values, target: Values, weight: Values) -> float:
    """Root of the weighted mean of squared errors; each argument [N]."""
    return math.sqrt(float(np.average((predicted - target) ** 2, weights=weight)))


def mae(predicted: Values, target: Values, weight: Values) -> float:
    """Weighted mean of absolute errors."""
    return float(np.average(np.abs(predicted - target), weights=weight))


def r2(predicted: Values, target: Values, weight: Values) -> float:
    """1 − Σ w (y − ŷ)² / Σ w (y − ȳ)²; NaN for fewer than two positions. Where y is constant, as scikit-learn has it:
    1 for predictions without an error, else 0."""
    if len(target) < 2:
        return math.nan
    errors = float((weight * (target - predicted) ** 2).sum())
    if np.ptp(target) == 0:
        return 1.0 if errors == 0 else 0.0
    spread = float((weight * (target - np.average(target, weights=weight)) ** 2).sum())
    return 1 - errors / spread


def pearson(predicted: Values, target: Values, weight: Values) -> float:
    """Weighted correlation; NaN where either is constant or not finite."""
    if len(target) < 2 or not np.isfinite(predicted).all() or np.ptp(predicted) == 0 or np.ptp(target) == 0:
        return math.nan
    x, y = (each - np.average(each, weights=weight) for each in (predicted, target))
    # Each is scaled by its largest entry first, so that no square overflows or vanishes.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    product = float((weight * x * y).sum())
    return max(-1.0, min(1.0, product / math.sqrt(float((weight * x**2).sum()) * float((weight * y**2).sum()))))


def spearman(predicted: Values, target: Values, weight: Values) -> float:
    """Correlation of the ranks, tied ones averaged; each position counts once, whatever its weight."""
    if not np.isfinite(predicted).all():
        return math.nan
    return pearson(average_ranks(predicted), average_ranks(target), np.ones_like(weight))


def average_ranks(values: Values) -> Values:
    """[N]: ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Values = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return means


OF_VALUES: dict[str, Callable[[Values, Values, Values], float]] = {
    "rmse": rmse,
    "mae": mae,
    "r2": r2,
    "pearson": pearson,
    "spearman": spearman,
}


def measure(predicted: Values, target: Values, weight: Values) -> dict[str, float]:
    """Each of `OF_VALUES` by name; NaN where nothing counts.

    Args:
        predicted, target: [N, K].
        weight: [N], above 0.
    """
    if not len(target):
        return dict.fromkeys(OF_VALUES, math.nan)
    pairs = list(zip(predicted.T, target.T, strict=True))
    return {
        name: float(np.mean([metric(ours, theirs, weight) for ours, theirs in pairs]))
        for name, metric in OF_VALUES.items()
    }
