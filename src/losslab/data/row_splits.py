"""The splits of rows by fixed rules: of their content alone, the same in every order and on every machine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shares = Mapping[str, float | None]
"""Splits that are taken out of the rows, val and test or one of them → share of the rows; None: the usual one."""
_SHARE, _USUAL_ROWS, _LARGEST_SHARE = 0.05, 100, 0.25


def hash64(value: Any) -> int:
    """64 bits of SHA-256 of a plain value."""
    return int.from_bytes(hashlib.sha256(json.dumps(value).encode()).digest()[:8], "big")


def split_rows(hashes: Sequence[int] | NDArray[np.uint64], shares: Shares) -> list[str]:
    """The split of each row: in the order of their hashes, rows go to val, then to test, until each has its share; the
    rest is train. Rows of equal hashes stay together.

    Args:
        hashes: of the inputs, or of the cell by which rows are grouped.
    """
    distinct, inverse, counts = np.unique(np.asarray(hashes, dtype=np.uint64), return_inverse=True, return_counts=True)
    chosen = np.zeros(len(distinct), dtype=np.int8)
    at = 0
    for code, share in enumerate(shares.values(), start=1):
        wanted, taken = _wanted(share, len(hashes)), 0
        while at < len(distinct) and taken < wanted:
            chosen[at] = code
            taken += int(counts[at])
            at += 1
    return _named(chosen[inverse], shares)


def split_by_label(hashes: Sequence[int] | NDArray[np.uint64], labels: Sequence[str], shares: Shares) -> list[str]:
    """The split of each row, so that labels are in val and test as they are in all rows.

    Label by label, in the order of their names, rows go to val and test in the order of their hashes, until those of
    this label and of the labels before have their share; so many round up and down alike. Train keeps the last rows of
    each label. Rows of equal hashes stay together, and count as rows of the rarest of their labels.
    """
    frequency = Counter(labels)
    rarity = {label: i for i, label in enumerate(sorted(frequency, key=lambda name: (frequency[name], name)))}
    distinct, inverse, size = np.unique(np.asarray(hashes, dtype=np.uint64), return_inverse=True, return_counts=True)
    rarest = np.full(len(distinct), len(rarity), dtype=np.int64)
    np.minimum.at(rarest, inverse, np.fromiter(map(rarity.__getitem__, labels), dtype=np.int64, count=len(labels)))
    strata = np.split(np.argsort(rarest, kind="stable"), np.bincount(rarest, minlength=len(rarity)).cumsum()[:-1])
    chosen = np.zeros(len(distinct), dtype=np.int8)
    wanted = {split: _wanted(share, len(hashes)) / max(len(hashes), 1) for split, share in shares.items()}
    seen, taken = 0, dict.fromkeys(shares, 0)
    for label in sorted(rarity):
        rows = strata[rarity[label]]
        seen += int(size[rows].sum())
        for code, (split, share) in enumerate(wanted.items(), start=1):
            candidates = size[rows[:-1]]
            middles = taken[split] + candidates.cumsum() - candidates / 2
            count = int(np.searchsorted(middles, share * seen, side="right"))
            chosen[rows[:count]] = code
            taken[split] += int(candidates[:count].sum())
            rows = rows[count:]
    return _named(chosen[inverse], shares)


def _named(codes: NDArray[np.int8], shares: Shares) -> list[str]:
    names = ("train", *shares)
    return [names[code] for code in codes.tolist()]


def _wanted(share: float | None, count: int) -> float:
    """Rows of a split of `count` rows."""
    usual = min(max(_SHARE * count, _USUAL_ROWS), _LARGEST_SHARE * count)
    return usual if share is None else share * count
