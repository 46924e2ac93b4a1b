"""Wrong labels on purpose: a share of train's rows gets another class, once and for all."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

NoiseKind = Literal["uniform", "pair"]
"""The class that a row gets where its label is flipped:

    uniform   one of the other classes, each as likely: symmetric noise. Papers whose symmetric noise draws from all
              classes, the true one included, flip (C − 1) / C of the rate that they state
    pair      the next class, and class 0 after the last: pair-flip, or asymmetric noise (Han et al. 2018,
              arXiv:1804.06872)
"""


def noisy_labels(
    labels: NDArray[np.int64], hashes: NDArray[np.uint64], classes: int, *, share: float, kind: NoiseKind, seed: int
) -> NDArray[np.int64]:
    """The classes of rows, each flipped with probability `share`, as a function of the seed and the row's hash alone.

    Args:
        labels: [N], true classes.
        hashes: [N], of each row's inputs.
        classes: C, at least 2.
        share: from 0 to 1.

    Returns:
        [N].
    """
    flipped = uniform(hashes, seed, 0) < share
    step = np.ones_like(labels) if kind == "pair" else 1 + (uniform(hashes, seed, 1) * (classes - 1)).astype(np.int64)
    return np.where(flipped, (labels + step) % classes, labels)


def uniform(hashes: NDArray[np.uint64], seed: int, draw: int) -> NDArray[np.float64]:
    """[N], in [0, 1): a number for each row under a seed, by the finalizer of SplitMix64 (Steele, Lea & Flood 2014)."""
    key = np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)
    mixed = hashes.astype(np.uint64) ^ key
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
