"""Splits of documents into train, val and test: a fixed rule of their content, the same everywhere and for ever."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from losslab.errors import UserError

SPLITS = ("train", "val", "test")
_SHARE = 0.05
"""The share of documents, by hash, for val and for test each."""
_LEAST_SHARE = 0.025
_LEAST_BYTES = 4096
"""Small texts: val and test take further documents until each has this share and this many bytes."""
_LONG = 20
"""Pieces of a text from which stretches can be taken."""
_EDGE = 0.05
"""The share at either end of a text that is left to train: a preface or a licence is seldom typical."""

Shares = Mapping[str, float | None]
"""Split → its share of the bytes; None: about a twentieth of the documents."""
USUAL: Shares = {"val": None, "test": None}


def document_hash(text: str) -> int:
    """64 bits of SHA-256."""
    return _first_bits(hashlib.sha256(text.encode()).digest())


def _first_bits(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


class Groups(NamedTuple):
    """Pieces in groups, by what decides their splits. Equal hashes are taken for equal pieces."""

    hashes: NDArray[np.uint64]
    """[N] `document_hash` of each piece."""
    sizes: NDArray[np.int64]
    """[N] bytes of each piece."""
    long: NDArray[np.bool_]
    """[N] whether an equal piece must be a copy."""
    ends: NDArray[np.int64]
    """[number of groups] the end of each in the pieces."""
    digests: list[bytes]
    """SHA-256 of the pieces of each group, joined by NUL."""
    digest: bytes
    """SHA-256 of all pieces, joined by NUL."""


def split_documents(documents: Sequence[str], shares: Shares = USUAL) -> dict[str, list[str]]:
    """Documents in their own order, by split (`assign`)."""
    hashes = np.array([document_hash(text) for text in documents], dtype=np.uint64)
    chosen = assign(hashes, np.array([len(text.encode()) for text in documents], dtype=np.int64), shares)
    return {split: [documents[i] for i in np.flatnonzero(chosen == code).tolist()] for code, split in enumerate(SPLITS)}


def assign(hashes: NDArray[np.uint64], sizes: NDArray[np.int64], shares: Shares = USUAL) -> NDArray[np.int8]:
    """The number in SPLITS of each document. Equal documents land in the same split.

    A document's hash, as a fraction of 2^64, decides: below 0.05 val, below 0.1 test, else train. Where that leaves val
    or test without a document, or with too little text, the documents next by hash follow. Where shares are given,
    documents follow in the order of their hashes until each share of the bytes is reached.

    Args:
        hashes, sizes: `document_hash` and bytes of each document, [N].

    Raises:
        UserError: when there are too few documents for the splits.
    """
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=hashes[order][:1] + np.uint64(1)))
    bounds = np.append(starts, len(order))
    total = int(sizes.sum())
    given = any(share is not None for share in shares.values())
    chosen = np.full(len(hashes), SPLITS.index("train"), dtype=np.int8)
    position, bound = 0, 0.0
    for split, share in shares.items():
        bound += _SHARE
        wanted = _wanted(share, total) if given else _least(total)
        taken, first = 0.0, position
        while position < len(starts) and (
            taken < wanted or (not given and int(hashes[order[starts[position]]]) < bound * 2**64)
        ):
            taken += int(sizes[order[bounds[position] : bounds[position + 1]]].sum())
            position += 1
        chosen[order[bounds[first] : bounds[position]]] = SPLITS.index(split)
    if position >= len(starts):
        raise _too_short(len(starts), shares)
    return chosen


def assign_groups(groups: Groups, shares: Shares = USUAL) -> NDArray[np.int8]:
    """`assign` for the pieces of groups, each of which stays whole: [N]."""
    hashes = np.array([_first_bits(digest) for digest in groups.digests], dtype=np.uint64)
    counts = np.diff(groups.ends, prepend=0)
    sizes = np.diff(np.append(0, groups.sizes.cumsum())[groups.ends], prepend=0) + np.maximum(counts - 1, 0)
    return np.repeat(assign(hashes, sizes, shares), counts)


def assign_stretches(groups: Groups, shares: Shares = USUAL) -> NDArray[np.int8]:
    """The numbers in SPLITS of pieces that are parts of longer texts, [N]: neighbours stay together.

    In each text val is one stretch of neighbouring pieces and test another, at places that the hash of the text
    decides, not at its ends. Texts of fewer than 20 pieces stay in train, unless all are: then they count as one text.
    Equal pieces of at least 8 words follow the first of them.

    Raises:
        UserError: when there are too few pieces for the splits.
    """
    total = int(groups.sizes.sum())
    given = any(share is not None for share in shares.values())
    usual = _SHARE if given or not total else max(_SHARE, _least(total) / total)
    parts = {split: share or usual for split, share in shares.items()}
    train = SPLITS.index("train")
    chosen = np.full(len(groups.hashes), train, dtype=np.int8)
    spans = list(zip(np.append(0, groups.ends).tolist(), groups.ends.tolist(), strict=False))
    long = [(span, digest) for span, digest in zip(spans, groups.digests, strict=True) if span[1] - span[0] >= _LONG]
    for (start, stop), digest in long or [((0, len(chosen)), groups.digest)]:
        chosen[start:stop] = _stretches(groups.sizes[start:stop], digest, parts)
    first = np.flatnonzero((chosen != train) & groups.long)
    held, places = np.unique(groups.hashes[first], return_index=True)
    if len(held):
        at = np.minimum(np.searchsorted(held, groups.hashes), len(held) - 1)
        copies = held[at] == groups.hashes
        chosen[copies] = chosen[first][places][at[copies]]
    if not all((chosen == SPLITS.index(split)).any() for split in ("train", *shares)):
        raise _too_short(len(np.unique(groups.hashes)), shares)
    return chosen


def _stretches(sizes: NDArray[np.int64], draws: bytes, parts: Mapping[str, float]) -> NDArray[np.int8]:
    """The split of each piece of one text.

    Args:
        draws: 32 bytes that decide the places.
    """
    starts = [0, *accumulate(sizes.tolist())]
    total = starts[-1]
    free = total - sum(parts.values()) * total
    places = sorted(
        (_EDGE + (1 - 2 * _EDGE) * int.from_bytes(draws[8 * i : 8 * i + 8], "big") / 2**64) * free
        for i in range(len(parts))
    )
    names = list(parts)[:: 1 if draws[-1] & 1 else -1]
    found = np.full(len(sizes), SPLITS.index("train"), dtype=np.int8)
    at, before = 0, 0.0
    for left, (name, place) in enumerate(zip(names, places, strict=True), start=1 - len(names)):
        # As many pieces stay behind as there are stretches to come.
        at = max(at, min(bisect_left(starts, place + before), len(sizes) - 1 + left))
        taken = 0.0
        while at < len(sizes) + left and taken < parts[name] * total:
            found[at] = SPLITS.index(name)
            taken += int(sizes[at])
            at += 1
        before += parts[name] * total
    return found


def _wanted(share: float | None, total: int) -> float:
    return (_SHARE if share is None else share) * total


def _least(total: int) -> float:
    return min(max(_LEAST_SHARE * total, _LEAST_BYTES), total / 4)


def _too_short(count: int, shares: Shares) -> UserError:
    wanted = ", ".join(("train", *shares)[:-1]) + f" and {[*shares][-1]}"
    return UserError(
        f"the text is too short: {count} different document(s) do not fill {wanted}; "
        "give more text, or data.documents=block"
    )
