"""The meter of tasks whose answers are spans of a text, and the numbers that they fit on val."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import (
    Calibrator,
    DataInfo,
    Features,
    LossSum,
    Meter,
    Metric,
    Passage,
    Projection,
    no_objective,
)
from losslab.contracts.task import Combined
from losslab.metrics.answers import COLUMNS, answered, best_threshold, decided, judged, spans_of
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.places import Choice, Identity, choices
from losslab.metrics.scale import fit_scale
from losslab.metrics.scorer import Scorer

_SHOWN = frozenset({"terminal", "events", "curves"})
_MARGIN = 0.005
SPAN_METRICS: tuple[Metric, ...] = (
    Metric("f1", "F1 of answers", "", True, _MARGIN, _SHOWN),
    Metric("em", "exact match of answers", "", True, _MARGIN, _SHOWN),
    Metric("f1_fitted", "F1 at val's threshold", "", True, _MARGIN, _SHOWN),
    Metric("em_fitted", "exact match at val's threshold", "", True, _MARGIN, frozenset({"terminal"})),
    Metric("has_answer_f1", "F1 where there is an answer", "", True, _MARGIN, frozenset({"terminal"})),
    Metric("has_answer_em", "exact match where there is an answer", "", True, _MARGIN, frozenset({"terminal"})),
    Metric("no_answer_accuracy", "accuracy where there is no answer", "", True, _MARGIN, frozenset({"terminal"})),
    Metric("threshold", "threshold of the best F1", "nats", None, None, frozenset()),
)
_WINDOWS = "windows"


class SpanMeter(Meter):
    """A `ClassMeter` of starts and ends, whose classes are places, with exact match and F1 of the answers' texts.

    Args:
        calibration: `scale` and `threshold`.
        threshold: odds of no answer above which there is none; None: every question is answered.
        longest: the most places in an answer.
    """

    def __init__(
        self,
        info: DataInfo,
        split: str,
        calibration: Mapping[str, float],
        *,
        threshold: float | None,
        longest: int,
        thorough: bool,
    ) -> None:
        self.ends = ClassMeter(info, split, calibration["scale"], thorough=thorough)
        self.passages = info.passages
        self.fitted = calibration["threshold"]
        self.threshold = math.inf if threshold is None else threshold
        self.longest = longest
        self.held_out = split == "val"
        self.windows = [torch.zeros(0, COLUMNS, dtype=torch.float64)]

    @torch.no_grad()
    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        """Add N windows; see `losslab.metrics.answers` for their extras."""
        features = features.kept()
        found = no_objective(features.hidden)
        if not len(features):
            return found
        with torch.autocast(device_type=features.hidden.device.type, enabled=False):
            for choice in choices(features, projection):
                found = found.plus(self.ends.update(choice.features, loss, choice.projection))
                if self.passages is not None:
                    self.windows.append(spans_of(choice, features.extras, loss, self.longest))
        return found

    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        return {**self.ends.states(), _WINDOWS: (torch.cat(self.windows), "cat")}

    def combine(self, states: dict[str, Tensor]) -> None:
        self.windows = [states[_WINDOWS]]
        self.ends.combine({name: state for name, state in states.items() if name != _WINDOWS})

    def values(self) -> dict[str, float]:
        """Metrics by name; those of answers where the data gives their texts, NaN where there are no such questions."""
        values = self.ends.values() | {"threshold": self.fitted}
        return values if self.passages is None else values | self._of_answers(self.passages)

    def _of_answers(self, passages: Callable[[int], Passage]) -> dict[str, float]:
        found = answered(torch.cat(self.windows).cpu().numpy())
        own = judged(found, passages)
        exact, f1 = decided(found, own, self.threshold)
        exact_fitted, f1_fitted = decided(found, own, self.fitted)
        scored = ~found.fit if self.held_out else np.ones_like(found.fit)
        return {
            "em": _mean(exact),
            "f1": _mean(f1),
            "em_fitted": _mean(exact_fitted[scored]),
            "f1_fitted": _mean(f1_fitted[scored]),
            "has_answer_em": _mean(exact[own.has_answer]),
            "has_answer_f1": _mean(f1[own.has_answer]),
            "no_answer_accuracy": _mean(exact[~own.has_answer]),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self.ends.arrays()


class SpanCalibration(Calibrator):
    """Collects the windows whose `fit` is 1 (all, where nothing says so); fits s of nll_scaled on them, and the
    threshold with the best F1.

    Args:
        passages: the texts of questions; None: the threshold is 0.
        longest: the most places in an answer.
    """

    names: ClassVar[tuple[str, ...]] = ("scale", "threshold")

    def __init__(self, passages: Callable[[int], Passage] | None, *, longest: int) -> None:
        self.passages = passages
        self.longest = longest
        self.kept: list[tuple[Choice, dict[str, Tensor]]] = []

    @torch.no_grad()
    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        fit = features.extras.get("fit")
        kept = (features if fit is None else features.weighted(fit)).kept()
        if len(kept):
            one = Identity(torch.eye(1, dtype=projection.weight.dtype, device=projection.weight.device))
            with torch.autocast(device_type=features.hidden.device.type, enabled=False):
                found = [choice._replace(projection=one) for choice in choices(kept, projection)]
            self.kept += [(choice, dict(kept.extras)) for choice in found]
        return no_objective(features.hidden)

    @torch.no_grad()
    def finish(self, loss: Scorer, projection: Projection) -> dict[str, float]:
        """`scale`: s of softmax(s · z), which a loss learns whose scores are no log-probabilities; then `threshold`."""
        one = Identity(torch.eye(1, dtype=projection.weight.dtype, device=projection.weight.device))
        with torch.autocast(device_type=projection.weight.device.type, enabled=False):
            scale = fit_scale([choice.features for choice, _ in self.kept], loss, one)
            loss.calibrate(scale)
            return {"scale": scale, "threshold": self._threshold(loss)}

    def _threshold(self, loss: Scorer) -> float:
        if self.passages is None or not self.kept:
            return 0.0
        windows = torch.cat([spans_of(choice, extras, loss, self.longest) for choice, extras in self.kept])
        found = answered(windows.cpu().numpy())
        return best_threshold(found.odds, judged(found, self.passages))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
