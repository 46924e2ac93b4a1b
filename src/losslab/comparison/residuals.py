"""Residuals of predicted values, by the value of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.runs.contenders import Contender

Content = Mapping[str, NDArray[np.generic]]
_GROUPS = 10
_LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Residuals:
    """Predicted less true of one loss and one of its values, all seeds together, by tenths of test's targets."""

    label: str
    place: int
    """The number of the value, from 0."""
    target: NDArray[np.float64]
    """[G]: the mean target of each group, from the least."""
    quantiles: NDArray[np.float64]
    """[3, G]: the 10%, 50% and 90% quantiles of its residuals."""
    count: NDArray[np.int64]
    """[G]: residuals in each."""


def residuals_of(contenders: Sequence[Contender], kept: Mapping[int, Content]) -> list[Residuals]:
    """One for each loss and value; none where no run keeps its predictions."""
    found = []
    for c in contenders:
        contents = [kept[id(run)] for run in c.runs.values() if id(run) in kept]
        contents = [content for content in contents if {"predicted", "target"} <= content.keys()]
        if not contents:
            continue
        predicted, target = (
            np.concatenate([np.asarray(content[name], np.float64) for content in contents])
            for name in ("predicted", "target")
        )
        found += [_grouped(c.label, k, predicted[:, k], target[:, k]) for k in range(target.shape[1])]
    return found


def _grouped(label: str, place: int, predicted: NDArray[np.float64], target: NDArray[np.float64]) -> Residuals:
    """Groups of nearly as many targets; equal targets stay together."""
    edges = np.unique(np.quantile(target, np.arange(1, _GROUPS) / _GROUPS))
    group = np.searchsorted(edges, target, side="left")
    groups = [group == g for g in np.unique(group)]
    return Residuals(
        label,
        place,
        np.array([target[own].mean() for own in groups]),
        np.array([np.quantile(predicted[own] - target[own], _LEVELS) for own in groups]).T,
        np.array([np.count_nonzero(own) for own in groups]),
    )
