"""The calibration of predictions over classes: one temperature, fitted for every loss on the same half of val."""

from __future__ import annotations

from typing import ClassVar

import torch

from losslab.contracts import Calibrator, Features, LossSum, Projection, no_objective
from losslab.metrics.class_metrics import classes_of, scoring_rows
from losslab.metrics.scale import fit_scale
from losslab.metrics.scorer import Scorer


class Temperature(Calibrator):
    """Collects the hidden states of positions whose `fit` is 1 (all, where nothing says so), and fits s on them."""

    names: ClassVar[tuple[str, ...]] = ("scale",)

    def __init__(self) -> None:
        self.kept: list[Features] = []

    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        fit = features.extras.get("fit")
        weight = features.weight if fit is None else features.weight * fit
        fitting = Features(features.hidden, classes_of(features), weight)
        self.kept.extend(fitting.kept().chunks(scoring_rows(loss.num_classes(len(projection.weight)))))
        return no_objective(features.hidden)

    def finish(self, loss: Scorer, projection: Projection) -> dict[str, float]:
        """`scale`: s of softmax(s · z). A loss whose scores are no log-probabilities learns it, too."""
        with torch.autocast(device_type=projection.weight.device.type, enabled=False):
            scale = fit_scale(self.kept, loss, projection)
        loss.calibrate(scale)
        return {"scale": scale}
