"""Tokens sorted by how often they occur in train, in groups that hold the same share of its text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FREQUENCY_GROUPS = 5


def frequency_groups(train_counts: NDArray[Any], groups: int = FREQUENCY_GROUPS) -> NDArray[np.int64]:
    """[V]: the group of each token, 0 the most frequent ones that make up a `groups`-th of train's text, groups − 1
    the rarest (and those that train lacks).

    Args:
        train_counts: [V].
    """
    counts = train_counts.astype(np.float64)
    order = np.argsort(-counts, kind="stable")
    before = counts[order].cumsum() - counts[order]
    found = np.empty(len(counts), dtype=np.int64)
    found[order] = (before * groups / max(counts.sum(), 1.0)).astype(np.int64).clip(max=groups - 1)
    found[counts == 0] = groups - 1
    return found
