"""Which document belongs to train, val and test: a fixed rule of its content, the same everywhere and for ever."""

from __future__ import annotations

import hashlib
from itertools import groupby

from losslab.errors import UserError

SPLITS = ("train", "val", "test")
_SHARE = 0.05
"""Of the documents, by hash, for val and for test each."""
_LEAST_SHARE = 0.025
_LEAST_BYTES = 4096
"""Small texts: val and test take further documents until each has this share and this many bytes."""


def document_hash(text: str) -> int:
    """64 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_documents(documents: list[str]) -> dict[str, list[str]]:
    """Documents in their own order, by split. Equal documents land in the same split.

    A document's hash, as a fraction of 2^64, decides: below 0.05 val, below 0.1 test, else train. Where that leaves val
    or test without a document, or with too little text, the documents next by hash follow.

    Raises:
        UserError: when there are too few documents for three splits.
    """
    hashes = [document_hash(text) for text in documents]
    order = sorted(range(len(documents)), key=lambda i: hashes[i])
    groups = [list(group) for _, group in groupby(order, key=lambda i: hashes[i])]
    sizes = [sum(len(documents[i].encode()) for i in group) for group in groups]
    least = min(max(_LEAST_SHARE * sum(sizes), _LEAST_BYTES), sum(sizes) / 4)
    assigned: dict[int, str] = {}
    position = 0
    for split, bound in (("val", _SHARE), ("test", 2 * _SHARE)):
        taken = 0.0
        while position < len(groups) and (taken < least or hashes[groups[position][0]] < bound * 2**64):
            assigned |= dict.fromkeys(groups[position], split)
            taken += sizes[position]
            position += 1
    if position >= len(groups):
        raise UserError(
            f"the text is too short: {len(groups)} different document(s) do not fill train, val and test; "
            "give more text, or data.documents=block"
        )
    result: dict[str, list[str]] = {split: [] for split in SPLITS}
    for i, text in enumerate(documents):
        result[assigned.get(i, "train")].append(text)
    return result
