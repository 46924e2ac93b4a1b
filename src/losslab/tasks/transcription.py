"""Transcription: the text of a sequence of frames, such as speech, whose characters nobody has aligned with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from losslab.contracts import Backbone, Batch, DataInfo, Features, TargetKind, Task, flat_hidden, padded
from losslab.contracts.task import ColumnKind
from losslab.errors import UserError
from losslab.metrics.transcript_meter import TRANSCRIPT_METRICS, TranscriptMeter

_NONE = -1


class Transcription(Task):
    """Frames [T, F] in, a text of U ≤ T characters out. The model gives a hidden state a frame, and the loss decides
    how the text lies along them. Texts have one space between words, and accents as one character (NFC)."""

    accepts = frozenset({TargetKind.SEQUENCES})
    metrics = TRANSCRIPT_METRICS
    primary = "nll"
    columns: Mapping[str, ColumnKind] = MappingProxyType({"frames": "frames", "text": "characters"})

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()

    def bind(self, info: DataInfo) -> None:
        """Receive the characters.

        Raises:
            UserError: for data that does not name its classes.
        """
        names = info.class_names or info.labels
        if names is None:
            raise UserError(
                "task=transcription needs the character of each class, and this data gives none "
                "(DataInfo.class_names): data=frames does"
            )
        self.names = names

    def target_size(self, info: DataInfo) -> int:
        """The number of characters in train."""
        if info.num_classes is None:
            raise UserError("task=transcription needs texts of classes, and this data has none (DataInfo.num_classes)")
        return info.num_classes

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`frames`, float [B, T, F], and `mask`, bool [B, T]; the characters of each text, int64 [B, U], −1 behind."""
        frames, mask = padded([example["frames"] for example in examples])
        texts = [torch.as_tensor(example["text"], dtype=torch.int64) for example in examples]
        target = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=_NONE)
        return Batch({"frames": frames, "mask": mask}, target, torch.ones(len(examples)), {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone, and put the hidden states of B utterances one behind the other, without the padding."""
        mask = batch.inputs["mask"].bool()
        hidden = flat_hidden(backbone(batch.inputs), mask, backbone)
        return Features(hidden[mask.flatten()], batch.target, batch.weight, batch.extras, mask.sum(dim=1))

    def flat_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Targets [B, U], and weights [B]."""
        return batch.target, batch.weight

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> TranscriptMeter:
        units = info.splits[split].units if thorough and split == "test" else 0
        return TranscriptMeter(self.names, num_units=units)
