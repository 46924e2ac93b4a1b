"""Copying: the answer to a sequence, symbol by symbol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from losslab.contracts import Backbone, Batch, DataInfo, Features, TargetKind, Task, flat_hidden
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.sequence_meter import EXACT_MATCH, SequenceMeter
from losslab.metrics.table import CLASS_METRICS
from losslab.metrics.temperature import Temperature

_BEGIN, _END = 0, 1


class Copying(Task):
    """A sequence x of n symbols and its answer y of as many, between a mark 0 that begins x and a mark 1 that ends it.

    Args:
        causal: predict y symbol by symbol behind x: 0 x₁ … xₙ 1 y₁ … yₙ₋₁ → y at the last n positions, for models that
            read what came before. False: predict y where x stands: 0 x₁ … xₙ 1 → y at the positions of x, for models
            that read both sides.
    """

    accepts = frozenset({TargetKind.CLASSES, TargetKind.DISTRIBUTIONS, TargetKind.LABELS})
    metrics = (EXACT_MATCH, *CLASS_METRICS)
    primary = EXACT_MATCH.name

    def __init__(self, *, causal: bool = True) -> None:
        self.causal = causal  # type: ignore[misc]

    def target_size(self, info: DataInfo) -> int:
        """The number of symbols, and the two marks, which are no target."""
        assert info.vocab_size is not None, "symbols are tokens"
        return info.vocab_size

    def collate(self, examples: Sequence[tuple[Tensor, Tensor]]) -> Batch:
        """`tokens`, int64 [B, T], and the answers [B, T], of weight 0 elsewhere. Sequences have one length."""
        source, answer = (torch.stack(part) for part in zip(*examples, strict=True))
        begin, end = (torch.full((len(source), 1), mark) for mark in (_BEGIN, _END))
        if self.causal:
            tokens, before = torch.cat([begin, source, end, answer[:, :-1]], dim=1), source.shape[1] + 1
        else:
            tokens, before = torch.cat([begin, source, end], dim=1), 1
        target, weight = torch.zeros_like(tokens), torch.zeros(tokens.shape)
        target[:, before : before + answer.shape[1]] = answer
        weight[:, before : before + answer.shape[1]] = 1.0
        return Batch({"tokens": tokens}, target, weight, {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and flatten: B sequences of T positions become N = B · T rows, whose extra `sentence` says
        which of them stand together."""
        hidden = flat_hidden(backbone(batch.inputs), batch.weight, backbone)
        sentence = torch.arange(len(batch.weight), device=hidden.device)[:, None].expand_as(batch.weight)
        extras = {name: value.flatten() for name, value in {**batch.extras, "sentence": sentence}.items()}
        return Features(hidden, batch.target.flatten(), batch.weight.flatten(), extras)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> SequenceMeter:
        return SequenceMeter(ClassMeter(info, split, calibration["scale"], thorough=thorough))
