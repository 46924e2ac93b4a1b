"""Multilabel classification: any number of labels for each text, or for each pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from losslab.contracts import Backbone, Batch, DataInfo, Features, TargetKind, Task
from losslab.errors import UserError
from losslab.metrics.label_calibration import LabelCalibration
from losslab.metrics.label_meter import LabelMeter
from losslab.metrics.table import LABEL_METRICS
from losslab.tasks.pairs import joined_columns, text_columns, text_inputs
from losslab.tasks.pooling import Pooling, pooled

_NONE = -1
"""Filler behind the labels of a row that has fewer than others."""


class Multilabel(Task):
    """The hidden state that stands for a text is projected to an output for each label, each a decision of its own.

    The primary metric, `nll_scaled`, is a proper score of all decisions that no threshold enters, after the scale and
    shift that undo what a loss does to all of its outputs alike.

    Args:
        pair: read two texts, the columns `text` and `text_pair`, as one sequence.
        pooling: the hidden state that stands for a text: of its first position, the mean, or of its last.
    """

    accepts = frozenset({TargetKind.LABELS})
    metrics = LABEL_METRICS
    primary = "nll_scaled"

    def __init__(self, *, pair: bool = False, pooling: Pooling = "mean") -> None:
        self.pair = pair
        self.pooling = pooling
        self.columns = {**text_columns(pair=pair), "labels": "labels"}
        self.joined = joined_columns(pair=pair)
        self.size = 0

    def bind(self, info: DataInfo) -> None:
        """Receive the number of labels."""
        self.size = self.target_size(info)

    def target_size(self, info: DataInfo) -> int:
        """C, the number of labels in train."""
        if info.num_classes is None:
            raise UserError("task=multilabel needs labels, and this data has none (DataInfo.num_classes)")
        return info.num_classes

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`tokens` and `mask`, of pairs `types`, too (`text_inputs`), and the labels that hold, int64 [B, K], −1 behind
        the last of each row."""
        labels = [torch.as_tensor(example["labels"], dtype=torch.int64) for example in examples]
        target = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_NONE)
        return Batch(text_inputs(examples, pair=self.pair), target, torch.ones(len(examples)), {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and pool: a row for each of B texts, with a target of 0 or 1 for each label."""
        hidden = pooled(backbone(batch.inputs), batch.inputs, self.pooling, weight=batch.weight, backbone=backbone)
        target, weight = self.flat_targets(batch)
        return Features(hidden, target, weight, batch.extras)

    def flat_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Targets float32 [B, C], and weights [B]."""
        classes = batch.target.masked_fill(batch.target == _NONE, self.size)
        hot = torch.zeros(len(classes), self.size + 1, device=classes.device).scatter_(1, classes, 1.0)
        return hot[:, : self.size], batch.weight

    def calibrator(self, info: DataInfo) -> LabelCalibration:
        return LabelCalibration()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> LabelMeter:
        return LabelMeter(info, split, calibration, thorough=thorough)
