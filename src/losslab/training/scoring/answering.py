"""Answers to questions about texts, as spans of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losslab.contracts import DataInfo, Features, LossSum, Projection, no_objective, to_device
from losslab.data.offsets import located
from losslab.data.question_windows import NO_SPAN, WindowRule
from losslab.data.questions import SUFFIXES, QuestionFiles
from losslab.data.tables import suffix_of
from losslab.data.tokenizer import Tokenizer, tokenizer_of
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.metrics.answers import answer_text, answered, spans_of
from losslab.metrics.places import choices
from losslab.tasks.qa import QuestionAnswering
from losslab.training.generation.prediction import ForwardContext
from losslab.training.network import Network

_READ = ("question", "context")


class AnswerPredictor:
    """Answers questions: `AnswerPredictor(network, info, data)([{"question": "…", "context": "…"}])`.

    Args:
        network: in evaluation mode.
        info: of the data that it was trained on.
        data: the run's data configuration, which says how windows are cut.
        forward_context: makes the context of each forward pass.

    Raises:
        UserError: for a run whose data is cut in a way of its own.
    """

    def __init__(
        self, network: Network, info: DataInfo, data: Mapping[str, Any], forward_context: ForwardContext
    ) -> None:
        tokenizer = tokenizer_of(info.artifacts)
        if not isinstance(network.task, QuestionAnswering) or tokenizer is None or "max_question" not in data:
            raise UserError(
                f"this run read its questions by {data['_target_']}: losslab predict answers questions for runs of "
                "task=qa on data=squad"
            )
        self.network = network
        self.task: QuestionAnswering = network.task
        self.tokenizer: Tokenizer = tokenizer
        self.rule = WindowRule(int(data["context"]), data["max_question"], data["stride"])
        self.names = {name: name for name in _READ}
        self.batch_size = int(data["val_batch_size"])
        self._forward_context = forward_context

    def __call__(self, rows: Sequence[Mapping[str, Any] | str], *, first: int = 1) -> list[dict[str, Any]]:
        """A dict for each row: `predicted`, characters of its context, empty for no answer; `best_span`, the best
        answer there is; and `no_answer_odds`, the log-odds of no answer against it. Above task.null_threshold no answer
        is predicted.

        Args:
            rows: `question` and `context` of each.
            first: the number of the first row, for messages.

        Raises:
            UserError: naming the row that cannot be used.
        """
        pairs = [self._parse(row, number) for number, row in enumerate(rows, start=first)]
        if not pairs:
            return []
        windows = list(self._windows(pairs))
        found = [self._spans(windows[i : i + self.batch_size]) for i in range(0, len(windows), self.batch_size)]
        best = answered(torch.cat(found).numpy())
        threshold = np.inf if self.task.null_threshold is None else self.task.null_threshold
        told = []
        for (_, context), odds, begin, end in zip(
            pairs, best.odds.tolist(), best.begin.tolist(), best.end.tolist(), strict=True
        ):
            text = answer_text(context, begin, end)
            told.append({"predicted": "" if odds > threshold else text, "best_span": text, "no_answer_odds": odds})
        return told

    def rows_of(self, path: Path) -> list[dict[str, Any]] | None:
        """The questions of a .json in the form of SQuAD, or of JSON lines; None for tables of other kinds."""
        if not path.is_file() or suffix_of(path) not in SUFFIXES:
            return None
        questions = QuestionFiles(labelled=False).read(path, Counter())
        return [{"id": each.id, "question": each.text, "context": each.context} for each in questions]

    @property
    def path_columns(self) -> list[str]:
        """No columns of paths."""
        return []

    def notes(self) -> list[str]:
        """None: long texts are read in windows."""
        return []

    def words_of(self, row: Mapping[str, Any]) -> list[str]:
        """The words of a row that have tags: none."""
        return []

    @staticmethod
    def _parse(row: Mapping[str, Any] | str, number: int) -> tuple[str, str]:
        if isinstance(row, str):
            raise UserError(f"row {number} is one text, and an answer needs {' and '.join(_READ)}")
        for name in _READ:
            if name not in row:
                raise UserError(f"row {number} has no {name!r}, but {', '.join(map(repr, row)) or 'nothing'}")
            if not isinstance(row[name], str) or not row[name].strip():
                raise UserError(f"row {number} cannot be used: its {name} must be text, not {row[name]!r}")
        return row["question"], row["context"]

    def _windows(self, pairs: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """The windows of all rows, those of a row under its number."""
        questions = located([question for question, _ in pairs], self.tokenizer)
        texts = located([context for _, context in pairs], self.tokenizer)
        for number, (question, text) in enumerate(zip(questions, texts, strict=True)):
            for part in self.rule.parts(len(question.ids), len(text.ids)):
                yield self.rule.example(question.ids, text, part, span=NO_SPAN, number=number, tokenizer=self.tokenizer)

    @torch.no_grad()
    def _spans(self, windows: Sequence[Mapping[str, Any]]) -> Tensor:
        """The best span of each window (`losslab.metrics.answers`)."""
        device = self.network.projection.weight.device
        batch = to_device(self.task.collate(windows), device)
        found: list[Tensor] = []

        def observe(features: Features | None, loss: Loss, projection: Projection) -> LossSum:
            assert features is not None
            with torch.autocast(device_type=device.type, enabled=False):
                for choice in choices(features, projection):
                    found.append(spans_of(choice, features.extras, loss, self.task.max_answer).cpu())
            return no_objective(projection.weight)

        with self._forward_context(device):
            self.network(batch, observe)
        return torch.cat(found)
