"""The reference that needs no model: the cross-entropy of the unigram distribution of train."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unigram_nll(train_counts: NDArray[Any], targets: NDArray[Any]) -> float:
    """Mean −log p of `targets` in nats, p = (count + 1) / (N + V): add-one counts of train.

    Args:
        train_counts: [V].
        targets: token ids, any shape.
    """
    smoothed = train_counts.astype(np.float64) + 1
    log_p = np.log(smoothed) - np.log(smoothed.sum())
    return float(-log_p[targets].mean())
