"""Documents of val and test that were seen before: whole, or nearly so by hashed 8-grams of words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from losslab.data.pieces import sample
from losslab.data.words import LONG, is_long

WORDS = LONG
"""Length of an n-gram."""
SHARE = 0.7
"""A document is a near-copy when this share of its n-grams occurs elsewhere (PaLM, arXiv:2204.02311, section 8)."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_FILTER = 24
_REST = np.uint64(64 - _FILTER)
"""Bits of a hash beside those that are looked up first, in a table that fits into a cache."""
MOST = 2**25
"""Bytes of val, and of test, that are compared: about 140 MB of memory for each."""
_AT_ONCE = 2**20
"""Bytes of text hashed together."""


def find_overlap(documents: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Split (val, test) → how many documents it has, how many of them are copies of earlier ones and near-copies.

    Val is held against train, test against train and val. Words are what stands between white space, in ASCII's lower
    case. Documents of fewer than 8 words are not compared: "Yes, my lord." is said twice without having been copied.
    Equal hashes are taken for equal texts. Of val and test not more than MOST bytes are compared; `sample_of` is there
    then, the number of all documents, of which `documents` are a sample by hash.
    """
    chosen = {split: sample(documents[split], MOST) for split in ("val", "test")}
    sought = {split: _Grams(texts) for split, texts in chosen.items()}
    for split in ("train", "val"):
        later = [sought["test"]] if split == "val" else list(sought.values())
        for _, _, grams in _hashed(_noted(documents[split], later)):
            for each in later:
                each.mark(grams)
    return {split: each.found(len(documents[split])) for split, each in sought.items()}


def _noted(documents: Iterable[str], later: Sequence[_Grams]) -> Iterator[str]:
    """Pass the documents on, and note copies of them."""
    for text in documents:
        key = hash(text.strip())
        for each in later:
            if key in each.texts:
                each.copied.add(key)
        yield text


class _Grams:
    """The n-grams of some documents, and which of them were seen elsewhere."""

    def __init__(self, documents: Sequence[str]) -> None:
        self.texts: dict[int, list[int]] = {}
        """Hash of a text → the numbers of the documents that are long enough and have it."""
        self.copied: set[int] = set()
        """Hashes of texts that are elsewhere as well."""
        self.count = len(documents)
        hashes, owners = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int32)]
        for first, ends, grams in _hashed(self._numbered(documents)):
            hashes.append(grams)
            owners.append((first + np.searchsorted(ends, np.arange(len(grams)), side="right")).astype(np.int32))
        self.owner = np.concatenate(owners)
        self.unique, places = np.unique(np.concatenate(hashes), return_inverse=True)
        self.places = places.astype(np.int32)
        self.seen = np.zeros(len(self.unique), dtype=bool)
        self.maybe = np.zeros(2**_FILTER, dtype=bool)
        self.maybe[self.unique >> _REST] = True

    def _numbered(self, documents: Iterable[str]) -> Iterator[str]:
        for number, text in enumerate(documents):
            if is_long(text):
                self.texts.setdefault(hash(text.strip()), []).append(number)
            yield text

    def mark(self, grams: NDArray[np.uint64]) -> None:
        grams = grams[self.maybe[grams >> _REST]]
        if len(grams):
            at = np.minimum(np.searchsorted(self.unique, grams), len(self.unique) - 1)
            self.seen[at[self.unique[at] == grams]] = True

    def found(self, documents: int) -> dict[str, int]:
        """Counts of copies, and of other documents that have at least 70% of their n-grams elsewhere."""
        total = np.bincount(self.owner, minlength=self.count)
        shared = np.bincount(self.owner, weights=self.seen[self.places], minlength=self.count)
        near = (total > 0) & (shared >= SHARE * total)
        copies = [number for key in self.copied for number in self.texts[key]]
        near[copies] = False
        counts = {"documents": self.count, "copies": len(copies), "near_copies": int(np.count_nonzero(near))}
        return counts | ({"sample_of": documents} if self.count < documents else {})


def _hashed(documents: Iterable[str]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.uint64]]]:
    """Groups of documents: the number of the first, the ends of the n-grams of each, and the n-grams."""
    batch: list[bytes] = []
    size = first = 0
    for text in documents:
        batch.append(text.encode().lower())
        size += len(batch[-1])
        if size >= _AT_ONCE:
            yield first, *_ngrams(batch)
            first += len(batch)
            batch, size = [], 0
    if batch:
        yield first, *_ngrams(batch)


def _ngrams(batch: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The end of each document's n-grams, [len(batch)], and the hashes of all of them."""
    content = np.frombuffer(b" " + b" ".join(batch) + b" ", dtype=np.uint8)
    inside = content > ord(" ")
    change = np.flatnonzero(np.diff(inside.view(np.int8)))
    starts, ends = change[::2] + 1, change[1::2] + 1
    powers = np.multiply.accumulate(np.full(len(content), _FACTOR))
    inverses = np.multiply.accumulate(np.full(len(content), _INVERSE))
    # A word's polynomial in the factor, wherever it stands: what its bytes add, divided by the power at its start.
    sums = np.concatenate([[np.uint64(0)], np.cumsum(powers * (content.astype(np.uint64) + np.uint64(1)))])
    words = _mixed((sums[ends] - sums[starts]) * inverses[starts])
    documents = np.cumsum([1, *(len(text) + 1 for text in batch)])
    counts = np.diff(np.searchsorted(starts, documents))
    grams = np.zeros(max(len(words) - WORDS + 1, 0), dtype=np.uint64)
    factor = np.uint64(1)
    with np.errstate(over="ignore"):
        for offset in range(WORDS):
            factor = factor * _FACTOR
            grams += words[offset : offset + len(grams)] * factor
    # Those that begin in one document and end in the next are none.
    word_ends = np.cumsum(counts)
    owner = np.repeat(np.arange(len(batch)), counts)[: len(grams)]
    whole = np.arange(len(grams)) + WORDS <= word_ends[owner]
    kept = np.bincount(owner[whole], minlength=len(batch))
    return np.cumsum(kept), _mixed(grams[whole])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bits spread by multiplication and shifts (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
