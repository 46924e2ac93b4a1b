"""The meter of every task whose targets are classes, tokens among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import DataInfo, Features, LossSum, Meter, Projection
from losslab.contracts.task import Combined
from losslab.metrics.class_metrics import ClassMetrics
from losslab.metrics.confusion import Confusion
from losslab.metrics.extended import Details
from losslab.metrics.frequency import frequency_groups
from losslab.metrics.scorer import Scorer
from losslab.metrics.text_units import per_text


class ClassMeter(Meter):
    """`ClassMetrics` of a split, with those of `Details` where it is thorough.

    Args:
        split: of val nll_scaled scores the half that did not fit the temperature; of test each unit is kept apart.
        scale: s of nll_scaled.
        by_class: with the metrics of `Confusion`, for classes that are no tokens (`DataInfo.num_classes`).
    """

    def __init__(self, info: DataInfo, split: str, scale: float, *, thorough: bool, by_class: bool = False) -> None:
        self.size = info.splits[split]
        self.class_names = info.class_names
        details = None
        if thorough:
            counts = info.class_counts
            groups = None if counts is None else torch.from_numpy(frequency_groups(counts.numpy()))
            details = Details(groups=groups, num_units=self.size.units if split == "test" else 0)
        confusion = Confusion(info.num_classes or 0, whole=thorough) if by_class else None
        self.metrics = ClassMetrics(scale, held_out=split == "val", details=details, confusion=confusion)

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
        details, confusion = self.metrics.details, self.metrics.confusion
        found = {} if details is None else details.arrays()
        if confusion is not None:
            found |= confusion.arrays()
            if self.class_names is not None:
                found["class_names"] = np.array(self.class_names, dtype=np.str_)
        return found
