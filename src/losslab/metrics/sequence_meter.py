"""The meter of tasks whose answers are sequences: metrics of classes, and how many answers are wholly right."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Features, LossSum, Meter, Projection
from losslab.contracts.task import Combined
from losslab.metric import Metric
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.class_metrics import classes_of
from losslab.metrics.scorer import Scorer

EXACT_MATCH = Metric(
    "exact_match", "answers that are right throughout", "", True, 0.01, frozenset({"terminal", "events", "curves"})
)
_EXACT = "exact"


class SequenceMeter(Meter):
    """A `ClassMeter`, with the share of sequences of whose positions every one is predicted right.

    Args:
        positions: of the positions' classes.
    """

    def __init__(self, positions: ClassMeter) -> None:
        self.positions = positions
        self.counts = torch.zeros(2, dtype=torch.float64)
        """Sequences that are right throughout, and all."""

    @torch.no_grad()
    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        """Add N positions; the extra `sentence`, int [N], says which stand together."""
        features = features.kept()
        with torch.autocast(device_type=features.hidden.device.type, enabled=False):
            predicted = loss.predict_log_probs(loss.scores(features.hidden, projection)).argmax(dim=-1)
        there, sequence = torch.unique(features.extras["sentence"], return_inverse=True)
        wrong = (predicted != classes_of(features)).double()
        mistakes = wrong.new_zeros(len(there)).index_add_(0, sequence, wrong)
        found = torch.stack([(mistakes == 0).double().sum(), mistakes.new_tensor(len(there))])
        self.counts = self.counts + found.to(self.counts.device)
        return self.positions.update(features, loss, projection)

    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        return {**self.positions.states(), _EXACT: (self.counts, "sum")}

    def combine(self, states: dict[str, Tensor]) -> None:
        self.counts = states[_EXACT]
        self.positions.combine({name: state for name, state in states.items() if name != _EXACT})

    def values(self) -> dict[str, float]:
        right, total = self.counts.tolist()
        return {EXACT_MATCH.name: right / total if total else float("nan"), **self.positions.values()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self.positions.arrays()
