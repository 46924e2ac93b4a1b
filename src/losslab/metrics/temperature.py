"""The calibration of predictions over classes: one temperature, fitted for every loss on the same half of val."""

from __future__ import annotations

from typing import ClassVar

import torch

from losslab.contracts import Calibrator, Features, LossSum, Projection, no_objective
from losslab.metrics.class_metrics import classes_of, scoring_rows
from losslab.metrics.scale import fit_scale
from losslab.metrics.scorer import Scorer

_FEWEST, _SHARE = 128, 16
"""Positions of the sample on which the fit begins, and one in how many it is of many: no more than are scored at
once."""


class Temperature(Calibrator):
    """Collects the hidden states of positions whose `fit` is 1 (all, where nothing says so), and fits s on them."""

    names: ClassVar[tuple[str, ...]] = ("scale",)

    def __init__(self) -> None:
        self.kept: list[Features] = []

    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        fit = features.extras.get("fit")
        weight = features.weight if fit is None else features.weight * fit
        self.kept.append(Features(features.hidden, classes_of(features), weight).kept())
        return no_objective(features.hidden)

    def finish(self, loss: Scorer, projection: Projection) -> dict[str, float]:
        """`scale`: s of softmax(s · z). A loss whose scores are no log-probabilities learns it, too."""
        rows = scoring_rows(loss.num_classes(len(projection.weight)))
        pieces, sample = [], None
        if self.kept:
            kept = self.kept
            hidden, target = torch.cat([part.hidden for part in kept]), torch.cat([part.target for part in kept])
            whole = Features(hidden, target, torch.cat([part.weight for part in kept]))
            step = max(1, min(_SHARE, len(whole) // _FEWEST), -(-len(whole) // rows))
            in_sample = torch.arange(len(whole), device=hidden.device) % step == 0
            sample, pieces = whole[in_sample], whole[~in_sample].chunks(rows)
        with torch.autocast(device_type=projection.weight.device.type, enabled=False):
            scale = fit_scale(pieces, loss, projection, sample=sample)
        loss.calibrate(scale)
        return {"scale": scale}
