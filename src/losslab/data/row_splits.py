"""The splits of rows by fixed rules: of their content alone, the same in every order and on every machine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Shares = Mapping[str, float | None]
"""Splits that are taken out of the rows, val and test or one of them → share of the rows; None: the usual one."""
_SHARE, _USUAL_ROWS, _LARGEST_SHARE = 0.05, 100, 0.25


def hash64(value: Any) -> int:
    """64 bits of SHA-256 of a plain value."""
    return int.from_bytes(hashlib.sha256(json.dumps(value).encode()).digest()[:8], "big")


def split_rows(hashes: Sequence[int], shares: Shares) -> list[str]:
    """The split of each row: in the order of their hashes, rows go to val, then to test, until each has its share; the
    rest is train. Rows of equal hashes stay together.

    Args:
        hashes: of the inputs, or of the cell by which rows are grouped.
    """
    distinct, inverse, counts = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True, return_counts=True)
    chosen = np.full(len(distinct), "train", dtype=object)
    at = 0
    for split, share in shares.items():
        wanted, taken = _wanted(share, len(hashes)), 0
        while at < len(distinct) and taken < wanted:
            chosen[at] = split
            taken += int(counts[at])
            at += 1
    return list(chosen[inverse])


def split_by_label(hashes: Sequence[int], labels: Sequence[str], shares: Shares) -> list[str]:
    """The split of each row, so that labels are in val and test as they are in all rows.

    Label by label, in the order of their names, rows go to val and test in the order of their hashes, until those of
    this label and of the labels before have their share; so many round up and down alike. Train keeps the last rows of
    each label. Rows of equal hashes stay together, and count as rows of the rarest of their labels.
    """
    frequency = Counter(labels)
    label_of: dict[int, str] = {}
    for value, label in zip(hashes, labels, strict=True):
        known = label_of.get(value, label)
        label_of[value] = min(known, label, key=lambda name: (frequency[name], name))
    size = Counter(hashes)
    strata: dict[str, list[int]] = defaultdict(list)
    for value in sorted(size):
        strata[label_of[value]].append(value)
    chosen = dict.fromkeys(size, "train")
    wanted = {split: _wanted(share, len(hashes)) / max(len(hashes), 1) for split, share in shares.items()}
    seen, taken = 0, dict.fromkeys(shares, 0)
    for label in sorted(strata):
        rows, at = strata[label], 0
        seen += sum(size[value] for value in rows)
        for split, share in wanted.items():
            while at < len(rows) - 1 and taken[split] + size[rows[at]] / 2 <= share * seen:
                chosen[rows[at]] = split
                taken[split] += size[rows[at]]
                at += 1
    return [chosen[value] for value in hashes]


def _wanted(share: float | None, count: int) -> float:
    """Rows of a split of `count` rows."""
    usual = min(max(_SHARE * count, _USUAL_ROWS), _LARGEST_SHARE * count)
    return usual if share is None else share * count
