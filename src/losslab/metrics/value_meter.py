"""The meter of tasks whose targets are values. Everything is in the unit of the data.

rmse, mae, r2, pearson, spearman    `value_metrics.py`
nll                                 −log of the predicted density at the target, nats per value; of losses that predict
                                    a distribution
zeros                               share of targets at which that density is 0; nll is infinite then
coverage_80, width_80               share of targets within the predicted quantiles 0.1 and 0.9, and the mean distance
                                    of these; coverage_95: 0.025 and 0.975
interval_…                          the same of the outermost quantiles of a loss that predicts some levels alone, and
                                    the share that lies between them if they are right
objective                           what the loss itself reports; never compared across losses
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Features, LossSum, Meter, Projection
from losslab.contracts.task import Combined
from losslab.metric import Metric
from losslab.metrics.scorer import ValueScorer
from losslab.metrics.value_metrics import measure

INTERVALS = {"80": (0.1, 0.9), "95": (0.025, 0.975)}
"""Name → levels of the two quantiles."""
_FACTS = 3
"""Numbers of a row before its values."""
_DENSITY = ("count", "nll", "zeros")
_OWN = "own"
_SPANS = {name: f"{{}}_{name}" for name in INTERVALS} | {_OWN: "interval_{}"}
"""Name → names of its metrics, coverage and width."""
_SUMS = (
    "objective",
    "objective_weight",
    *_DENSITY,
    *(f"{part}_{span}" for span in _SPANS for part in ("count", "inside", "width")),
    "nominal",
)


def value_metrics(unit: str) -> tuple[Metric, ...]:
    """Declarations of all that a `ValueMeter` returns, of values in this unit."""
    shown = frozenset({"terminal", "events", "curves"})
    few = frozenset({"terminal"})
    nats = f"nats per value in {unit}" if unit else "nats per value"
    return (
        Metric("rmse", "root mean squared error", unit, False, None, shown),
        Metric("mae", "mean absolute error", unit, False, None, shown | {"checked"}),
        Metric("r2", "R²", "", True, 0.005, few),
        Metric("pearson", "Pearson correlation", "", True, 0.005, few),
        Metric("spearman", "Spearman correlation", "", True, 0.005, shown | {"checked"}),
        Metric("nll", "nll of the predicted density", nats, False, 0.01, few),
        Metric("zeros", "share of targets with density 0", "", None, None),
        *(
            metric
            for name in INTERVALS
            for metric in (
                Metric(f"coverage_{name}", f"share of targets within the {name}% interval", "", None, None, few),
                Metric(f"width_{name}", f"mean width of the {name}% interval", unit, None, None),
            )
        ),
        Metric("interval_nominal", "nominal share within the loss's own interval", "", None, None),
        Metric("interval_coverage", "share of targets within the loss's own interval", "", None, None),
        Metric("interval_width", "mean width of the loss's own interval", unit, None, None),
        Metric("objective", "value of the loss itself", "", None, None, few),
    )


class ValueMeter(Meter):
    """Keeps every prediction beside its target, as rows in the order of the samples' ids, and sums of the rest.

    Args:
        mean, std: [K], what a value that the loss sees is multiplied by, and what is then added, for its unit.
        num_units: how many samples, or groups of them, have scores of their own in `arrays`; 0 for none.
    """

    def __init__(self, *, mean: Tensor, std: Tensor, num_units: int = 0) -> None:
        self.mean, self.std = mean.double(), std.double()
        self.num_units = num_units
        self.rows = torch.zeros(0, _FACTS + 2 * len(mean), dtype=torch.float64)
        """[n, 3 + 2 K]: id, unit, weight, predictions, targets."""
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64)

    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        return {"rows": (self.rows, "cat"), "sums": (self.sums, "sum")}

    @torch.no_grad()
    def update(self, features: Features, loss: ValueScorer, projection: Projection) -> LossSum:
        """Add N positions, whose targets in their unit are the extra `value`, float64 [N, K]."""
        features = features.kept()
        with torch.autocast(device_type=features.hidden.device.type, enabled=False):
            objective = loss(features, projection)
            self._add("objective", objective.total.double())
            self._add("objective_weight", objective.weight.double())
            if len(features):
                self._measure(features, loss, loss.scores(features.hidden, projection))
        return objective

    def _measure(self, features: Features, loss: ValueScorer, scores: Tensor) -> None:
        mean, std = self.mean.to(scores.device), self.std.to(scores.device)
        weight, value = features.weight.double(), features.extras["value"]
        nothing = torch.zeros_like(weight)
        number, unit = (features.extras.get(name, nothing).double() for name in ("id", "unit"))
        predicted = loss.predict_values(scores).double() * std + mean
        rows = torch.cat([torch.stack([number, unit, weight], dim=1), predicted, value], dim=1)
        self.rows = torch.cat([self.rows, rows.to(self.rows.device)])
        density = loss.log_density(scores, features.target)
        if density is not None:
            nll = std.log() - density.double()
            self._add("count", weight.sum())
            self._add("nll", (weight * nll.mean(dim=1)).sum())
            self._add("zeros", (weight * nll.isinf().double().mean(dim=1)).sum())
        spans = dict(INTERVALS)
        if len(loss.levels) > 1:
            spans[_OWN] = (loss.levels[0], loss.levels[-1])
            self._add("nominal", (loss.levels[-1] - loss.levels[0]) * weight.sum())
        for name, levels in spans.items():
            quantiles = loss.predict_quantiles(scores, levels)
            if quantiles is None:
                continue
            low, high = (quantiles.double() * std[:, None] + mean[:, None]).unbind(dim=-1)
            inside = ((low <= value) & (value <= high)).double()
            self._add(f"count_{name}", weight.sum())
            self._add(f"inside_{name}", (weight * inside.mean(dim=1)).sum())
            self._add(f"width_{name}", (weight * (high - low).mean(dim=1)).sum())

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[_SUMS.index(name)] += value.to(self.sums.device)

    def values(self) -> dict[str, float]:
        """Each metric by name; of distributions and intervals those that the loss predicts."""
        _, weight, predicted, target = self._sorted()
        found = measure(predicted, target, weight)
        sums = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        if count := sums["count"]:
            found |= {"nll": sums["nll"] / count, "zeros": sums["zeros"] / count}
        for name, prefix in _SPANS.items():
            if count := sums[f"count_{name}"]:
                found[prefix.format("coverage")] = sums[f"inside_{name}"] / count
                found[prefix.format("width")] = sums[f"width_{name}"] / count
        if count := sums[f"count_{_OWN}"]:
            found["interval_nominal"] = sums["nominal"] / count
        count = sums["objective_weight"]
        return found | {"objective": sums["objective"] / count if count else math.nan}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """`units` [2, U], of each unit its weight and its sum of absolute errors (mean over K values), and
        `unit_metrics`; `predicted` and `target`, float64 [n, K], in their unit and in the order of the samples."""
        if not self.num_units:
            return {}
        unit, weight, predicted, target = self._sorted()
        place, errors = unit.astype(np.int64), weight * np.abs(predicted - target).mean(axis=1)
        units = np.stack([np.bincount(place, weights=each, minlength=self.num_units) for each in (weight, errors)])
        found = {"units": units.astype(np.float32), "unit_metrics": np.array(["mae"])}
        return found | {"predicted": predicted, "target": target}

    def _sorted(self) -> tuple[NDArray[np.float64], ...]:
        """Units [n], weights [n], predictions [n, K] and targets [n, K], in the order of the samples' ids."""
        order = self.rows[:, 0].argsort(stable=True)
        rows = self.rows[order].cpu().numpy()
        half = _FACTS + len(self.mean)
        return rows[:, 1], rows[:, 2], rows[:, _FACTS:half], rows[:, half:]
