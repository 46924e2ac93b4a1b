"""Question answering: the span of a text that answers a question, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    Features,
    Projection,
    TargetKind,
    Task,
    flat_hidden,
)
from losslab.errors import UserError
from losslab.metrics.answers import OFFSETS, QUESTION
from losslab.metrics.places import PLACES, choices
from losslab.metrics.span_meter import SPAN_METRICS, SpanCalibration, SpanMeter
from losslab.metrics.table import CLASS_METRICS, PRIMARY
from losslab.tasks.pairs import TEXT, text_inputs

_ENDS = 2


class QuestionAnswering(Task):
    """Start and end of an answer are each one of the tokens of a window of the text, or the first token of the input,
    which stands for no answer (Devlin et al. 2018, arXiv:1810.04805). The loss of a window is the mean of both.

    Args:
        max_answer: the most tokens in a predicted answer.
        null_threshold: log-odds of no answer against the best span, above which none is predicted; None: every question
            is answered.

    Raises:
        UserError: for an answer without tokens, and a threshold that is no number.
    """

    accepts = frozenset({TargetKind.CLASSES})
    metrics = (*SPAN_METRICS, *CLASS_METRICS)
    primary = PRIMARY
    points = True

    def __init__(self, *, max_answer: int = 30, null_threshold: float | None = 0.0) -> None:
        if max_answer < 1:
            raise UserError(f"task.max_answer must be 1 or above, not {max_answer}")
        if null_threshold is not None and null_threshold != null_threshold:
            raise UserError("task.null_threshold must be a number, or null, under which every question is answered")
        self.max_answer = max_answer
        self.null_threshold = null_threshold

    def target_size(self, info: DataInfo) -> int:
        """Two: start and end."""
        return _ENDS

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """A batch of B windows.

        Args:
            examples: of each the tokens of the question, `text`, and of the window, `text_pair`, both with their ends;
                `offsets`, int32 [c, 2], of the c tokens of the window that stand for its text; `span`, the places of
                the first and the last token of the answer among these, −1 where the window has none; and `question`,
                its number.

        Returns:
            `tokens`, `types` [B, T] and `mask` (`losslab.tasks.pairs.text_inputs`); targets int64 [B, 2], places of
            [B, T]; and the extras `places`, `offsets` and `question`.
        """
        inputs = text_inputs(examples, pair=True)
        length = inputs["tokens"].shape[1]
        places = torch.zeros(len(examples), length, dtype=torch.bool)
        offsets = torch.zeros(len(examples), length, 2, dtype=torch.int32)
        target = torch.zeros(len(examples), _ENDS, dtype=torch.int64)
        places[:, 0] = True
        for i, example in enumerate(examples):
            first = len(example[TEXT])
            own = slice(first, first + len(example["offsets"]))
            places[i, own] = True
            offsets[i, own] = example["offsets"]
            if example["span"][0] >= 0:
                target[i] = first + torch.tensor(example["span"])
        question = torch.tensor([example["question"] for example in examples])
        extras = {PLACES: places, OFFSETS: offsets, QUESTION: question}
        return Batch(inputs, target, torch.ones(len(examples)), extras)

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone: hidden states [B, T, D] of B windows, with their targets [B, 2]."""
        each = torch.ones(batch.inputs["tokens"].shape, device=batch.weight.device)
        hidden = flat_hidden(backbone(batch.inputs), each, backbone).view(*each.shape, -1)
        return Features(hidden, batch.target, batch.weight, batch.extras)

    def choices(self, features: Features, projection: Projection) -> Iterable[tuple[Features, Projection]]:
        """Starts and ends of windows with equally many places (`losslab.metrics.places`)."""
        return ((choice.features, choice.projection) for choice in choices(features, projection))

    def flat_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Places [2 B], and weights [2 B]: a half of a window's for each end."""
        return batch.target.flatten(), batch.weight.repeat_interleave(_ENDS) / _ENDS

    def calibrator(self, info: DataInfo) -> SpanCalibration:
        return SpanCalibration(info.passages, longest=self.max_answer)

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> SpanMeter:
        return SpanMeter(
            info, split, calibration, threshold=self.null_threshold, longest=self.max_answer, thorough=thorough
        )
