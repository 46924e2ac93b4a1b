"""Splits of documents into train, val and test: a fixed rule of their content, the same everywhere and for ever."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

from losslab.data.overlap import is_long
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
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_documents(documents: Sequence[str], shares: Shares = USUAL) -> dict[str, list[str]]:
    """Documents in their own order, by split. Equal documents land in the same split.

    A document's hash, as a fraction of 2^64, decides: below 0.05 val, below 0.1 test, else train. Where that leaves val
    or test without a document, or with too little text, the documents next by hash follow. Where shares are given,
    documents follow in the order of their hashes until each share of the bytes is reached.

    Raises:
        UserError: when there are too few documents for the splits.
    """
    return split_groups([[document] for document in documents], shares)


def split_groups(groups: Sequence[Sequence[str]], shares: Shares = USUAL) -> dict[str, list[str]]:
    """`split_documents` for groups of pieces, each of which stays whole."""
    texts = ["\0".join(group) for group in groups]
    hashes = [document_hash(text) for text in texts]
    sizes = [len(text.encode()) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: hashes[i])
    equal = [list(group) for _, group in groupby(order, key=lambda i: hashes[i])]
    totals = [sum(sizes[i] for i in group) for group in equal]
    given = any(share is not None for share in shares.values())
    assigned: dict[int, str] = {}
    position, bound = 0, 0.0
    for split, share in shares.items():
        bound += _SHARE
        wanted = _wanted(share, sum(totals)) if given else _least(sum(totals))
        taken = 0.0
        while position < len(equal) and (taken < wanted or (not given and hashes[equal[position][0]] < bound * 2**64)):
            assigned |= dict.fromkeys(equal[position], split)
            taken += totals[position]
            position += 1
    if position >= len(equal):
        raise _too_short(len(equal), shares)
    return _by_split(groups, [[assigned.get(i, "train")] * len(group) for i, group in enumerate(groups)])


def split_stretches(groups: Sequence[Sequence[str]], shares: Shares = USUAL) -> dict[str, list[str]]:
    """Pieces that are parts of longer texts, in their own order, by split: neighbours stay together.

    In each text val is one stretch of neighbouring pieces and test another, at places that the hash of the text
    decides, not at its ends. Texts of fewer than 20 pieces stay in train, unless all are: then they count as one text.
    Equal pieces of at least 8 words follow the first of them.

    Raises:
        UserError: when there are too few pieces for the splits.
    """
    total = sum(len(piece.encode()) for group in groups for piece in group)
    given = any(share is not None for share in shares.values())
    usual = _SHARE if given or not total else max(_SHARE, _least(total) / total)
    parts = {split: share or usual for split, share in shares.items()}
    long = [len(group) >= _LONG for group in groups]
    if any(long):
        chosen = [
            _stretches(group, parts) if is_long else ["train"] * len(group)
            for group, is_long in zip(groups, long, strict=True)
        ]
    else:
        chosen = [_stretches([piece for group in groups for piece in group], parts)]
        groups = [[piece for group in groups for piece in group]]
    first: dict[str, str] = {}
    for group, splits in zip(groups, chosen, strict=True):
        for piece, split in zip(group, splits, strict=True):
            if split != "train" and is_long(piece):
                first.setdefault(piece, split)
    found = _by_split(
        groups,
        [
            [first.get(piece, split) for piece, split in zip(group, splits, strict=True)]
            for group, splits in zip(groups, chosen, strict=True)
        ],
    )
    if not all(found[split] for split in ("train", *shares)):
        raise _too_short(len({piece for group in groups for piece in group}), shares)
    return found


def _stretches(pieces: Sequence[str], parts: Mapping[str, float]) -> list[str]:
    """The split of each piece of one text."""
    sizes = [len(piece.encode()) for piece in pieces]
    starts = [0, *accumulate(sizes)]
    total = starts[-1]
    free = total - sum(parts.values()) * total
    draws = hashlib.sha256("\0".join(pieces).encode()).digest()
    places = sorted(
        (_EDGE + (1 - 2 * _EDGE) * int.from_bytes(draws[8 * i : 8 * i + 8], "big") / 2**64) * free
        for i in range(len(parts))
    )
    names = list(parts)[:: 1 if draws[-1] & 1 else -1]
    found = ["train"] * len(pieces)
    at, before = 0, 0.0
    for left, (name, place) in enumerate(zip(names, places, strict=True), start=1 - len(names)):
        # As many pieces stay behind as there are stretches to come.
        at = max(at, min(bisect_left(starts, place + before), len(pieces) - 1 + left))
        taken = 0.0
        while at < len(pieces) + left and taken < parts[name] * total:
            found[at] = name
            taken += sizes[at]
            at += 1
        before += parts[name] * total
    return found


def _wanted(share: float | None, total: int) -> float:
    return (_SHARE if share is None else share) * total


def _least(total: int) -> float:
    return min(max(_LEAST_SHARE * total, _LEAST_BYTES), total / 4)


def _by_split(groups: Sequence[Sequence[str]], chosen: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for group, splits in zip(groups, chosen, strict=True):
        for piece, split in zip(group, splits, strict=True):
            found[split].append(piece)
    return found


def _too_short(count: int, shares: Shares) -> UserError:
    wanted = ", ".join(("train", *shares)[:-1]) + f" and {[*shares][-1]}"
    return UserError(
        f"the text is too short: {count} different document(s) do not fill {wanted}; "
        "give more text, or data.documents=block"
    )
