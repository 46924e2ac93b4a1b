"""Classification: one class for each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from losslab.contracts import Backbone, Batch, DataInfo, Features, TargetKind, Task, flat_hidden, padded
from losslab.contracts.task import ColumnKind
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import CLASS_METRICS, PRIMARY
from losslab.metrics.temperature import Temperature


class Classification(Task):
    """The mean of a text's hidden states is projected; a model may as well return one hidden state for each text."""

    accepts = frozenset({TargetKind.CLASSES, TargetKind.DISTRIBUTIONS, TargetKind.LABELS})
    metrics = CLASS_METRICS
    primary = PRIMARY
    columns: ClassVar[Mapping[str, ColumnKind]] = {"text": "text", "label": "label"}

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
        hidden = backbone(batch.inputs)
        if hidden.ndim > batch.weight.ndim + 1:
            hidden = _mean(hidden, batch.inputs.get("mask"))
        hidden = flat_hidden(hidden, batch.weight, backbone)
        return Features(hidden, batch.target, batch.weight, batch.extras)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ClassMeter:
        return ClassMeter(info, split, calibration["scale"], thorough=thorough)


def _mean(hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """[B, D]: the mean over the positions that the mask keeps; over all without one."""
    if mask_BT is None:
        return hidden_BTD.mean(dim=1)
    kept = mask_BT[..., None].to(hidden_BTD.dtype)
    return (hidden_BTD * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
