"""Classification: one class for each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from losslab.contracts import Backbone, Batch, DataInfo, Features, TargetKind, Task, padded
from losslab.contracts.task import ColumnKind
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import CLASS_METRICS, PRIMARY
from losslab.metrics.temperature import Temperature
from losslab.tasks.pooling import Pooling, pooled


class Classification(Task):
    """The hidden state that stands for a text is projected; a model may as well return one hidden state for each text.

    Args:
        pooling: the one that stands for a text: of its first position, the mean over its positions, or of its last.
    """

    accepts = frozenset({TargetKind.CLASSES, TargetKind.DISTRIBUTIONS, TargetKind.LABELS})
    metrics = CLASS_METRICS
    primary = PRIMARY
    columns: ClassVar[Mapping[str, ColumnKind]] = {"text": "text", "label": "label"}

    def __init__(self, *, pooling: Pooling = "mean") -> None:
        self.pooling = pooling

    def target_size(self, info: DataInfo) -> int:
        """The number of labels in train."""
        assert info.num_classes is not None, "its column of labels has classes"
        return info.num_classes

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`tokens`, int64 [B, T], `mask`, bool [B, T], and a class [B]."""
        tokens, mask = padded([example["text"] for example in examples])
        target = torch.tensor([example["label"] for example in examples])
        return Batch({"tokens": tokens, "mask": mask}, target, torch.ones(len(examples)), {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and pool: a row for each of B texts."""
        hidden = pooled(backbone(batch.inputs), batch.inputs, self.pooling, weight=batch.weight, backbone=backbone)
        return Features(hidden, batch.target, batch.weight, batch.extras)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ClassMeter:
        return ClassMeter(info, split, calibration["scale"], thorough=thorough)
