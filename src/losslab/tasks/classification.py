"""Classification: one class for each text, or for each pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from losslab.contracts import Backbone, Batch, DataInfo, Features, TargetKind, Task, padded
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import BY_CLASS, CLASS_METRICS, PRIMARY
from losslab.metrics.temperature import Temperature
from losslab.tasks.pairs import joined_columns, text_columns, text_inputs
from losslab.tasks.pooling import Pooling, pooled


class Classification(Task):
    """The hidden state that stands for a text is projected; a model may as well return one hidden state for each text.

    Args:
        pair: read two texts, the columns `text` and `text_pair`, as one sequence.
        pooling: the one that stands for a text: of its first position, the mean over its positions, or of its last.
    """

    accepts = frozenset({TargetKind.CLASSES, TargetKind.DISTRIBUTIONS, TargetKind.LABELS})
    metrics = (*CLASS_METRICS, *BY_CLASS)
    primary = PRIMARY

    def __init__(self, *, pair: bool = False, pooling: Pooling = "mean") -> None:
        self.pair = pair
        self.pooling = pooling
        self.columns = {**text_columns(pair=pair), "label": "label"}
        self.joined = joined_columns(pair=pair)

    def target_size(self, info: DataInfo) -> int:
        """The number of labels in train."""
        assert info.num_classes is not None, "its column of labels has classes"
        return info.num_classes

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`tokens` and `mask`, of pairs `types`, too (`text_inputs`), and a class [B]. Samples may have `frames`,
        float [T, F], instead of a text."""
        target = torch.tensor([example["label"] for example in examples])
        if "frames" in examples[0]:
            inputs = dict(zip(("frames", "mask"), padded([example["frames"] for example in examples]), strict=True))
        else:
            inputs = text_inputs(examples, pair=self.pair)
        return Batch(inputs, target, torch.ones(len(examples)), {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and pool: a row for each of B texts."""
        hidden = pooled(backbone(batch.inputs), batch.inputs, self.pooling, weight=batch.weight, backbone=backbone)
        return Features(hidden, batch.target, batch.weight, batch.extras)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ClassMeter:
        return ClassMeter(info, split, calibration["scale"], thorough=thorough, by_class=True)
