"""The best span of each question, over all windows of its text, and the threshold below which there is no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Passage
from losslab.metrics.places import Choice
from losslab.metrics.scorer import Scorer
from losslab.metrics.squad import exact_and_f1

QUESTION, OFFSETS = "question", "offsets"
"""Extras of a batch of windows: int64 [N], the number of the question; int32 [N, T, 2], the first character of each
place in the question's text, and the one behind its last."""
COLUMNS = 6
"""Numbers of a window: its question, the score of no answer, that of its best span, the span's first character and the
one behind its last, and `fit`."""
_QUESTION, _NULL, _SCORE, _BEGIN, _END, _FIT = range(COLUMNS)
_FLOOR = -1e4
"""A floor of log-probabilities, for losses that predict exact zeros."""


class Answered(NamedTuple):
    """Q questions, in the order of their numbers."""

    question: NDArray[np.int64]
    """[Q]."""
    odds: NDArray[np.float64]
    """[Q]: the score of no answer less that of the best span: above the threshold there is no answer."""
    begin: NDArray[np.int64]
    """[Q]: the best span's first character."""
    end: NDArray[np.int64]
    """[Q]: the character behind its last."""
    fit: NDArray[np.bool_]
    """[Q]: whether the question fits the calibrator."""


class Judged(NamedTuple):
    """Their answers beside those that people gave, [Q] each."""

    exact: NDArray[np.float64]
    """Exact match of the best span."""
    f1: NDArray[np.float64]
    has_answer: NDArray[np.bool_]


def best_spans(start: Tensor, end: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The score of the best span of n samples, and the classes of its ends, [n] each.

    Args:
        start, end: scores [n, C]. Class 0 stands for no answer, the others are places in their order.
        longest: the most places in a span.

    Returns:
        Of a sample without places the score −∞.
    """
    count = start.shape[1]
    best = torch.full_like(start[:, 0], -torch.inf)
    first, last = (torch.zeros(len(start), dtype=torch.int64, device=start.device) for _ in range(2))
    for more in range(min(longest, count - 1)):
        score, at = (start[:, 1 : count - more] + end[:, 1 + more :]).max(dim=1)
        better = score > best
        best = torch.where(better, score, best)
        first, last = torch.where(better, at + 1, first), torch.where(better, at + 1 + more, last)
    return best, first, last


def spans_of(choice: Choice, extras: Mapping[str, Tensor], loss: Scorer, longest: int) -> Tensor:
    """float64 [n, COLUMNS] of n windows: the best span by the loss's own log-probabilities.

    Args:
        extras: of the N windows among which `choice` has chosen.
        longest: the most places in a span.
    """
    log_p = loss.predict_log_probs(loss.scores(choice.features.hidden, choice.projection)).float().clamp(min=_FLOOR)
    start, end = log_p.view(len(choice.rows), 2, -1).unbind(dim=1)
    score, first, last = best_spans(start, end, longest)
    offsets = extras[OFFSETS][choice.rows]
    ends = [
        offsets.gather(1, choice.places.gather(1, at[:, None])[..., None].expand(-1, -1, 2))[:, 0]
        for at in (first, last)
    ]
    fit = extras.get("fit")
    columns = [
        extras[QUESTION][choice.rows],
        start[:, 0] + end[:, 0],
        score.clamp(min=2 * _FLOOR),
        ends[0][:, 0],
        ends[1][:, 1],
        torch.ones_like(score) if fit is None else fit[choice.rows],
    ]
    return torch.stack([column.double() for column in columns], dim=1)


def answered(windows: NDArray[np.float64]) -> Answered:
    """The best span of each question among those of its windows [W, COLUMNS]: the one with the largest score, of equal
    ones the first in the text. The score of no answer is the smallest of its windows: each of them has to say so."""
    order = np.lexsort((windows[:, _BEGIN], -windows[:, _SCORE], windows[:, _QUESTION]))
    windows = windows[order]
    question, first = np.unique(windows[:, _QUESTION], return_index=True)
    null = np.minimum.reduceat(windows[:, _NULL], first) if len(first) else np.empty(0)
    best = windows[first]
    begin, end = best[:, _BEGIN].astype(np.int64), best[:, _END].astype(np.int64)
    return Answered(question.astype(np.int64), null - best[:, _SCORE], begin, end, best[:, _FIT] > 0)


def answer_text(text: str, begin: int, end: int) -> str:
    """The characters of a span, without white space around them."""
    return text[begin:end].strip()


def judged(found: Answered, passages: Callable[[int], Passage]) -> Judged:
    """Exact match and F1 of the best spans, whatever the threshold is."""
    rows = list(_judge(found, passages))
    exact, f1, has_answer = zip(*rows, strict=True) if rows else ((), (), ())
    return Judged(np.array(exact, dtype=float), np.array(f1, dtype=float), np.array(has_answer, dtype=bool))


def _judge(found: Answered, passages: Callable[[int], Passage]) -> Iterator[tuple[float, float, bool]]:
    for question, begin, end in zip(*(each.tolist() for each in (found.question, found.begin, found.end)), strict=True):
        passage = passages(question)
        exact, f1 = exact_and_f1(answer_text(passage.text, begin, end), passage.answers)
        yield exact, f1, bool(passage.answers)


def decided(found: Answered, own: Judged, threshold: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact match and F1 of the answers, [Q] each, where odds above the threshold mean that there is none."""
    none = found.odds > threshold
    empty = (~own.has_answer).astype(float)
    return np.where(none, empty, own.exact), np.where(none, empty, own.f1)


def best_threshold(odds: NDArray[np.float64], own: Judged) -> float:
    """The threshold with the largest mean F1, as the script of SQuAD 2.0 looks for it, which answers first what it is
    surest of; of equal ones the smallest. Below all odds where no answer at all is best; 0 without questions."""
    if not len(odds):
        return 0.0
    order = np.argsort(odds, kind="stable")
    gains = np.where(own.has_answer, own.f1, own.f1 - 1)[order].cumsum()
    odds = odds[order]
    whole = np.append(odds[1:] != odds[:-1], True)
    gains, odds = np.append(0.0, gains[whole]), np.append(odds[0] - 1, odds[whole])
    return float(odds[int(gains.argmax())])
