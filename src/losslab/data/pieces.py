"""Pieces of texts, by their places: what splits follow from is kept of each, and its text is read when it is needed."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from losslab.data.splits import Groups
from losslab.data.stored_text import StoredText
from losslab.data.words import count_words, is_long

_AHEAD = 2**18
"""Bytes that are read together."""
_USED = np.uint64(2**8)
"""The lowest bits of a hash decide other things (`TokenSplit.fit`)."""


class Pieces:
    """Pieces of texts, each text's one after the other; about 40 bytes of memory for each."""

    def __init__(self) -> None:
        self.texts: list[StoredText] = []
        self._text = array("i")
        self._start, self._stop = array("q"), array("q")
        self._hash = array("Q")
        self._words = array("q")
        self._long = array("b")
        self._ends = array("q")
        self._digests: list[bytes] = []
        self._group = hashlib.sha256()
        self._all = hashlib.sha256()

    def __len__(self) -> int:
        return len(self._hash)

    def add(self, text: StoredText, found: Iterator[tuple[int, int, str]]) -> None:
        """One text with its pieces: first byte, end and content of each."""
        self._group = hashlib.sha256()
        first = True
        for start, stop, content in found:
            encoded = content.encode()
            if not first:
                self._group.update(b"\0")
            if len(self):
                self._all.update(b"\0")
            self._group.update(encoded)
            self._all.update(encoded)
            self._text.append(len(self.texts))
            self._start.append(start)
            self._stop.append(stop)
            self._hash.append(int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big"))
            self._words.append(count_words(content))
            self._long.append(is_long(content))
            first = False
        self.texts.append(text)
        self._digests.append(self._group.digest())
        self._ends.append(len(self))

    @property
    def groups(self) -> Groups:
        """Facts that decide splits; a group is what was one text."""
        return Groups(
            np.frombuffer(self._hash, dtype=np.uint64) if len(self) else np.empty(0, dtype=np.uint64),
            np.array(self._stop, dtype=np.int64) - np.array(self._start, dtype=np.int64),
            np.array(self._long, dtype=bool),
            np.array(self._ends, dtype=np.int64),
            self._digests,
            self._all.digest(),
        )

    def hashes(self, chosen: NDArray[np.int64]) -> NDArray[np.uint64]:
        """`document_hash` of each of these."""
        return self.groups.hashes[chosen]

    def size(self, chosen: NDArray[np.int64]) -> int:
        """Bytes of all of these."""
        return int(self.groups.sizes[chosen].sum())

    def words(self, chosen: NDArray[np.int64]) -> int:
        return int(np.array(self._words, dtype=np.int64)[chosen].sum())

    def place(self, number: int) -> tuple[StoredText, int, int]:
        """The text that a piece stands in, and its first byte and end there."""
        return self.texts[self._text[number]], self._start[number], self._stop[number]


class Documents(Sequence[str]):
    """Some pieces, read from the disk one after the other.

    Args:
        chosen: the numbers of the pieces; default: all.
    """

    def __init__(self, pieces: Pieces, chosen: NDArray[np.int64] | None = None) -> None:
        self._pieces = pieces
        self.chosen = np.arange(len(pieces)) if chosen is None else chosen

    @property
    def words(self) -> int:
        """Words of all of them."""
        return self._pieces.words(self.chosen)

    def sample(self, most: int) -> Documents:
        """Documents of about `most` bytes, chosen by their hashes; all of them if they have no more."""
        every = -(-self._pieces.size(self.chosen) // most)
        if every <= 1:
            return self
        return Documents(self._pieces, self.chosen[self._pieces.hashes(self.chosen) // _USED % np.uint64(every) == 0])

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Documents: ...

    def __getitem__(self, at: int | slice) -> str | Documents:
        if isinstance(at, slice):
            return Documents(self._pieces, self.chosen[at])
        text, start, stop = self._pieces.place(self.chosen[at])
        return text.part(start, stop).read()

    def __iter__(self) -> Iterator[str]:
        source: StoredText | None = None
        content, first, end = b"", 0, 0
        for number in self.chosen:
            text, start, stop = self._pieces.place(number)
            start, stop = text.start + start, text.start + stop
            if source is None or text.source is not source.source or start < first or stop > end:
                source, first, end = text, start, min(max(stop, start + _AHEAD), text.stop)
                content = text.read_bytes(first, end)
            yield content[start - first : stop - first].decode()


def sample(documents: Sequence[str], most: int) -> Sequence[str]:
    """`Documents.sample`; documents in memory are few, and all taken."""
    return documents.sample(most) if isinstance(documents, Documents) else documents
