"""Best spans by brute force, the best one of a question over its windows, and the threshold of SQuAD 2.0's script."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from losslab.contracts import Passage
from losslab.metrics.answers import COLUMNS, Answered, Judged, answered, best_spans, best_threshold, decided, judged


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_span_is_that_of_brute_force(longest: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (2, 3, 9):
        start, end = torch.randn(2, 20, count, generator=generator)
        score, first, last = best_spans(start, end, longest)
        for i in range(20):
            spans = [(a, b) for a, b in itertools.product(range(1, count), repeat=2) if 0 <= b - a < longest]
            best = max(spans, key=lambda span: start[i, span[0]] + end[i, span[1]])
            assert (int(first[i]), int(last[i])) == best
            assert float(score[i]) == pytest.approx(float(start[i, best[0]] + end[i, best[1]]))
    score, _, _ = best_spans(torch.zeros(1, 1), torch.zeros(1, 1), longest)
    assert score.tolist() == [-torch.inf], "a text without tokens has no span"


def windows(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=float).reshape(-1, COLUMNS)


def test_a_question_has_the_best_span_of_its_windows() -> None:
    found = answered(
        windows((4, -0.1, -9.0, 7, 9, 1), (2, -3.0, -1.0, 5, 6, 0), (4, -7.0, -0.5, 0, 3, 1), (2, -2.0, -1.0, 1, 2, 0))
    )
    assert found.question.tolist() == [2, 4]
    assert found.begin.tolist() == [1, 0] and found.end.tolist() == [2, 3], "of equal ones the first in the text"
    assert found.odds.tolist() == [-2.0, -6.5] and found.fit.tolist() == [False, True]
    passages = {2: Passage("x yz", ["y"]), 4: Passage("Kelm", [])}
    own = judged(found, passages.__getitem__)
    assert own.f1.tolist() == [0, 0] and own.has_answer.tolist() == [True, False]
    exact, f1 = decided(found, own, -3.0)
    assert exact.tolist() == f1.tolist() == [0, 0]
    assert decided(found, own, -7.0)[1].tolist() == [0, 1]
    assert not len(answered(windows()).question)


def script_best(odds: list[float], f1: list[float], has_answer: list[bool]) -> float:
    """The best mean F1 as the script of SQuAD 2.0 finds it (`find_best_thresh`), for answers that are never empty."""
    current = best = sum(not has for has in has_answer)
    for i in sorted(range(len(odds)), key=odds.__getitem__):
        current += f1[i] if has_answer[i] else -1
        best = max(best, current)
    return best / len(odds)


def test_the_threshold_gives_the_best_f1() -> None:
    rng = random.Random(0)
    for _ in range(100):
        count = rng.randint(1, 12)
        has = [rng.random() < 0.6 for _ in range(count)]
        f1 = [rng.choice([0.0, 0.5, 1.0]) if each else 0.0 for each in has]
        odds = rng.sample(range(-20, 20), count)
        found = Answered(*(np.zeros(count),) * 5)._replace(odds=np.array(odds, dtype=float))
        own = Judged(np.array(f1), np.array(f1), np.array(has))
        threshold = best_threshold(found.odds, own)
        assert decided(found, own, threshold)[1].mean() == pytest.approx(script_best(odds, f1, has))


def test_equal_odds_are_decided_alike() -> None:
    own = Judged(np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([True, False]))
    assert best_threshold(np.array([3.0, 3.0]), own) == 2.0, (
        "both or none are worth one: none, with the smaller threshold"
    )
    assert best_threshold(np.empty(0), Judged(*(np.empty(0),) * 3)) == 0.0
