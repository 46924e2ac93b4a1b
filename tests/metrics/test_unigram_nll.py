"""The reference that needs no model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from losslab.metrics.unigram import unigram_nll


def test_a_hand_worked_text() -> None:
    """Counts 3, 0, 1 become 4/7, 1/7, 2/7; the targets are 0 0 1 2."""
    expected = -(2 * math.log(4 / 7) + math.log(1 / 7) + math.log(2 / 7)) / 4
    assert unigram_nll(np.array([3, 0, 1]), np.array([[0, 0], [1, 2]])) == pytest.approx(expected, rel=1e-12)


def test_without_counts_it_is_the_log_of_the_vocabulary() -> None:
    assert unigram_nll(np.zeros(50, dtype=np.int64), np.arange(50)) == pytest.approx(math.log(50), rel=1e-12)


def test_large_counts_of_small_integers_do_not_overflow() -> None:
    counts = np.full(4, np.iinfo(np.int32).max, dtype=np.int32)
    assert unigram_nll(counts, np.array([0, 3])) == pytest.approx(math.log(4), rel=1e-12)
