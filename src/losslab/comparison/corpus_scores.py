"""Metrics of written texts that are no means: functions of counts that are added up over the texts, as sacrebleu has
them (Post 2018, arXiv:1804.08771)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CorpusScore = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Sums of counts [..., K] → scores [...]."""
_NGRAMS = 4
_ORDERS, _BETA = 6, 2.0


def bleu(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU from 0 to 100 (Papineni et al. 2002), with sacrebleu's exponential smoothing: the n-th order without a match
    has the precision 1 / (2ⁿ · n-grams).

    Args:
        sums: [..., 10]: tokens of the outputs, and of the references; n-grams of the orders 1 to 4 that match; and
            those that there are.
    """
    written, there = sums[..., 0], sums[..., 1]
    matches, total = sums[..., 2 : 2 + _NGRAMS], sums[..., 2 + _NGRAMS : 2 + 2 * _NGRAMS]
    nothing = (matches == 0).all(axis=-1) | (total == 0).any(axis=-1)
    missed = matches == 0
    smoothed = np.where(missed, 0.5 ** missed.cumsum(axis=-1), matches) / np.where(total == 0, 1.0, total)
    short = 1 - there / np.where(written == 0, 1.0, written)
    found = 100 * np.exp(np.minimum(short, 0.0)) * np.exp(np.log(smoothed).mean(axis=-1))
    return np.asarray(np.where(nothing, 0.0, found), dtype=np.float64)


def chrf(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """chrF from 0 to 100 (Popović 2015): F₂ of the mean precision and the mean recall of character n-grams, over the
    orders that both sides have.

    Args:
        sums: [..., 18]: for each order from 1 to 6 the n-grams of the outputs, those of the references, and matches.
    """
    written, there, matches = (sums.reshape(*sums.shape[:-1], _ORDERS, 3)[..., i] for i in range(3))
    counts = (written > 0) & (there > 0)
    orders = np.maximum(counts.sum(axis=-1), 1)
    precision, recall = (
        (np.where(counts, matches / np.where(counts, side, 1.0), 0.0)).sum(axis=-1) / orders
        for side in (written, there)
    )
    below = _BETA**2 * precision + recall
    found = 100 * (1 + _BETA**2) * precision * recall / np.where(below == 0, 1.0, below)
    return np.asarray(found, dtype=np.float64)


CORPUS_SCORES: dict[str, CorpusScore] = {"bleu": bleu, "chrf": chrf}
"""Metric → its function of `METRIC_counts` [K, U], which a run keeps of each unit of test (`RunFolder.scores`)."""
