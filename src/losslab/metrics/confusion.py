"""Metrics of predicted classes, from how often each class is predicted where each class is true.

macro_f1             mean of the classes' F1, over those that are true or predicted somewhere
balanced_accuracy    mean of the classes' recall, over those that are true somewhere
mcc                  Matthews' correlation coefficient for any number of classes (Gorodkin 2004); 0 where every
                     prediction, or every target, is the same

The definitions are those of scikit-learn: `f1_score(average="macro")`, `balanced_accuracy_score`, `matthews_corrcoef`.
All of them are functions of three sums for each class: its weight among targets, among predictions, and among hits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_CLASSES = 200
"""Classes up to which the whole matrix is kept, 0.3 MB; of more, the three sums for each class."""
_ROUNDING = 1e-12


class Confusion:
    """Streaming sums.

    Args:
        num_classes: C.
        whole: keep the matrix [C, C], where C is at most `MOST_CLASSES`.
    """

    def __init__(self, num_classes: int, *, whole: bool) -> None:
        self.sums = torch.zeros(3, num_classes, dtype=torch.float64)
        """Weight of each class among hits, among targets, and among predictions."""
        size = num_classes if whole and num_classes <= MOST_CLASSES else 0
        self.matrix = torch.zeros(size, size, dtype=torch.float64)
        """Weight of each true class (row) under each predicted one (column)."""

    def states(self) -> list[Tensor]:
        """Tensors that ranks add up."""
        return [self.sums, self.matrix]

    def receive(self, states: list[Tensor]) -> None:
        """Take states in the order of `states`."""
        self.sums, self.matrix = states

    def update(self, target: Tensor, predicted: Tensor, weight: Tensor) -> None:
        """Add N positions: classes int64 [N], weight [N]."""
        weight = weight.double()
        for row, (classes, share) in enumerate(
            [(target, weight * (target == predicted)), (target, weight), (predicted, weight)]
        ):
            self.sums[row].index_add_(0, classes, share)
        if size := len(self.matrix):
            self.matrix.view(-1).index_add_(0, target * size + predicted, weight)

    def values(self) -> dict[str, float]:
        """Each metric by name; NaN where nothing counted."""
        hits, support, predicted = self.sums
        total = float(support.sum())
        if total == 0:
            return dict.fromkeys(("macro_f1", "balanced_accuracy", "mcc"), math.nan)
        _, recall, f1, _ = class_table(self.sums)
        true, said = support / total, predicted / total
        spreads = 1 - float(true @ true), 1 - float(said @ said)
        covariance = float(hits.sum()) / total - float(true @ said)
        return {
            "macro_f1": float(f1[(support > 0) | (predicted > 0)].mean()),
            "balanced_accuracy": float(recall[support > 0].mean()),
            "mcc": covariance / math.sqrt(math.prod(spreads)) if min(spreads) > _ROUNDING else 0.0,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """`class_metrics` [4, C]: precision, recall, F1 and support (weight) of each class; `confusion` [C, C]: weight
        of each true class (row) under each predicted one, where it is kept."""
        found: dict[str, NDArray[Any]] = {"class_metrics": class_table(self.sums).cpu().numpy()}
        if len(self.matrix):
            found["confusion"] = self.matrix.cpu().numpy()
        return found


def class_table(sums: Tensor) -> Tensor:
    """Precision, recall, F1 and support of each class, [4, C], from its weight among hits, targets and predictions,
    [3, C]. A ratio is 0 where a class is never predicted, or never true."""
    hits, support, predicted = sums
    return torch.stack([_ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted), support])


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part / whole.where(whole > 0, torch.ones_like(whole))
