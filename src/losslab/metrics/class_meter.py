"""The meter of every task whose targets are classes, tokens among them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import DataInfo, Features, LossSum, Meter, Projection
from losslab.contracts.task import Combined
from losslab.metrics.class_metrics import ClassMetrics
from losslab.metrics.extended import Details
from losslab.metrics.frequency import frequency_groups
from losslab.metrics.scorer import Scorer
from losslab.metrics.text_units import per_text


class ClassMeter(Meter):
    """`ClassMetrics` of a split, with those of `Details` where it is thorough.

    Args:
        split: of val nll_scaled scores the half that did not fit the temperature; of test each unit is kept apart.
        scale: s of nll_scaled.
    """

    def __init__(self, info: DataInfo, split: str, scale: float, *, thorough: bool) -> None:
        self.size = info.splits[split]
        details = None
        if thorough:
            counts = info.class_counts
            groups = None if counts is None else torch.from_numpy(frequency_groups(counts.numpy()))
            details = Details(groups=groups, num_units=self.size.units if split == "test" else 0)
        self.metrics = ClassMetrics(scale, held_out=split == "val", details=details)

    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        return self.metrics.update(features, loss, projection)

    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        return {str(i): (state, "sum") for i, state in enumerate(self.metrics.states())}

    def combine(self, states: dict[str, Tensor]) -> None:
        self.metrics.receive([states[str(i)] for i in range(len(states))])

    def values(self) -> dict[str, float]:
        """Metrics by name; of text, without those per byte and word where the tokenizer loses some of it."""
        return per_text(self.metrics.values(), self.size.positions, self.size.words)

    def arrays(self) -> dict[str, NDArray[Any]]:
        details = self.metrics.details
        return {} if details is None else details.arrays()
