"""Windows of a text with a question before each: what a model reads where texts are longer than its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import EvalWindows
from losslab.data.offsets import Located
from losslab.data.sampler import MOST_UNITS, EvalSamples
from losslab.data.tokenizer import Tokenizer
from losslab.errors import UserError

NO_SPAN = (-1, -1)
_QUESTIONS_SHARE = 4


@dataclass(frozen=True)
class WindowRule:
    """How windows are cut: the token that a tokenizer puts before texts, else the end of text; then the question, the
    end, tokens of the text, the end.

    Args:
        context: tokens of a window, with all of these.
        max_question: tokens of a question that are read; None: a quarter of the context.
        stride: tokens from the beginning of a window's text to that of the next; None: a half of the tokens that there
            is room for.
    """

    context: int
    max_question: int | None = None
    stride: int | None = None

    @property
    def longest_question(self) -> int:
        """The most tokens of a question."""
        return self.max_question or max(1, self.context // _QUESTIONS_SHARE)

    def check(self) -> None:
        """Raises UserError for numbers that leave no room, or tokens that no window has."""
        for name, value in (("max_question", self.max_question), ("stride", self.stride)):
            if value is not None and value < 1:
                raise UserError(f"data.{name} must be 1 or above, or null, not {value}")
        room = self.context - self.longest_question - 3
        if room < 1:
            raise UserError(
                f"data.context={self.context} has no room for a question of data.max_question={self.longest_question} "
                "tokens, three marks and a text: give a longer context, or a smaller data.max_question"
            )
        if self.stride is not None and self.stride > room:
            raise UserError(
                f"data.stride={self.stride} would pass over tokens: beside a question of {self.longest_question} "
                f"tokens a window of data.context={self.context} has {room} of the text; give at most as many"
            )

    def parts(self, question: int, text: int) -> list[tuple[int, int]]:
        """The first token of each window's text, and the one behind its last.

        Args:
            question: tokens of the question, before it is cut.
            text: tokens of the text.
        """
        room = self.context - min(question, self.longest_question) - 3
        windows = EvalWindows(room, self.stride or max(1, room // 2), 1)
        return [(start, min(start + room, text)) for start in windows.starts(text)]

    def example(
        self,
        question: NDArray[np.int32],
        text: Located,
        part: tuple[int, int],
        *,
        span: tuple[int, int],
        number: int,
        tokenizer: Tokenizer,
    ) -> dict[str, Any]:
        """A window as `losslab.tasks.qa.QuestionAnswering.collate` takes it.

        Args:
            span: the first and the last token of the answer, counted in the whole text; NO_SPAN: there is none. A
                window that holds a part of it has no answer.
            number: of the question.
        """
        start, stop = part
        mark = [] if tokenizer.end is None else [tokenizer.end]
        begin = mark if tokenizer.begin is None else [tokenizer.begin]
        inside = start <= span[0] and span[1] < stop
        return {
            "text": _tokens([*begin, *question[: self.longest_question].tolist(), *mark]),
            "text_pair": _tokens([*text.ids[start:stop].tolist(), *mark]),
            "offsets": torch.from_numpy(text.offsets[start:stop].astype(np.int32)),
            "span": (span[0] - start, span[1] - start) if inside else NO_SPAN,
            "question": number,
        }


def _tokens(ids: Sequence[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64)


class QuestionSamples(EvalSamples):
    """The windows of a split, of which those of a question stay together: in a part of the split, and in the half that
    fits a calibrator. A unit is a text, with all questions about it.

    Args:
        question: [W], the number of each window's question in the split, which rises.
        hashes: uint64 [Q], of each question.
        texts: [Q], the text of each question.
    """

    unit = "text"

    def __init__(self, question: NDArray[np.int64], hashes: NDArray[np.uint64], texts: NDArray[np.int64]) -> None:
        rank = np.empty(len(hashes), dtype=np.int64)
        rank[np.argsort(hashes, kind="stable")] = np.arange(len(hashes))
        self._rank = rank[question]
        super().__init__(np.argsort(self._rank, kind="stable"), np.ones(len(question), dtype=np.int64))
        self.fit = (self._rank % 2 == 0).astype(np.uint8)
        _, unit = np.unique(texts[question], return_inverse=True)
        count = int(unit.max()) + 1
        self.num_units = min(count, MOST_UNITS)
        self.units = unit.astype(np.int64) * self.num_units // count

    def choose(self, most: int | None, *, fit: bool = False) -> NDArray[np.int64]:
        """Windows in their order: all, or those of as many questions of the order of hashes as have at most `most`
        windows, but of at least one of each half.

        Args:
            fit: of the half that fits a calibrator alone.
        """
        order = self.order[self.fit[self.order] == 1] if fit else self.order
        if most is not None and most < len(order):
            fewest = np.unique(self._rank[order])[0 if fit else 1]
            last = max(int(self._rank[order[most]]) - 1, int(fewest))
            order = order[self._rank[order] <= last]
        return np.sort(order)


def is_unreached(parts: Sequence[tuple[int, int]], span: tuple[int, int]) -> bool:
    """Whether no window holds the whole answer."""
    return span != NO_SPAN and not any(start <= span[0] and span[1] < stop for start, stop in parts)
