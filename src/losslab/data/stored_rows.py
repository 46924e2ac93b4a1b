"""Parsed rows on their way to the tokenizer: in a file, so that memory holds a few bytes of each."""

from __future__ import annotations

import marshal
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from losslab.data.table_format import Row

_WINDOW = 2**22
"""Bytes that are read together."""
_AT_ONCE = 2**20
"""Bytes of rows that are encoded together; the tokenizers library takes about 60 bytes of memory for each."""
_MOST_ROWS = 2**14
"""Rows that are read or encoded together."""
_VERSION = 2
"""The newest form of marshal without references between parts of a row, which are of no use here."""


class StoredRows:
    """Rows of the same columns in a file without a name, which ends with this object or its process.

    Args:
        folder: on a disk that has room for all cells.
        names: the columns, in the order that the rows have them.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=_WINDOW))  # noqa: SIM115
        weakref.finalize(self, _close, self._file)
        self._names = tuple(names)
        self._size = 0
        self._written = array("q")

    def append(self, row: Row) -> None:
        self._size += self._file.write(marshal.dumps(tuple(row.values()), _VERSION))
        self._written.append(self._size)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """[N]: where each row ends in the file, once all are there."""
        ends = np.array(self._written, dtype=np.int64)
        self._written = array("q")
        return ends

    def sizes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """[len(numbers)]: the bytes of these rows."""
        return self.ends[numbers] - self._begins(numbers)

    def read(self, numbers: NDArray[np.int64]) -> Iterator[Row]:
        """The rows of these numbers, which rise."""
        at = 0
        while at < len(numbers):
            start = int(self._begins(numbers[at : at + 1])[0])
            near = self.ends[numbers[at : at + _MOST_ROWS]]
            stop = max(1, int(np.searchsorted(near, start + _WINDOW, side="right")))
            self._file.seek(start)
            content = memoryview(self._file.read(int(near[stop - 1]) - start))
            begins = (self._begins(numbers[at : at + stop]) - start).tolist()
            for begin, end in zip(begins, (near[:stop] - start).tolist(), strict=True):
                yield dict(zip(self._names, marshal.loads(content[begin:end]), strict=True))
            at += stop

    def _begins(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(numbers > 0, self.ends[numbers - 1], 0)


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # of a full disk, which a write has reported
        file.close()


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split, in their order; each pass over them reads the file."""

    stored: StoredRows
    numbers: NDArray[np.int64]
    """[N] in `stored`; they rise."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Row]:
        return self.stored.read(self.numbers)

    def texts(self, names: Sequence[str]) -> Texts:
        return Texts(self, names)

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return int(self.stored.sizes(self.numbers).sum())

    def batches(self, first: int = 0) -> Iterator[tuple[list[Row], int]]:
        """Neighbouring rows, as many as are encoded together, and their bytes.

        Args:
            first: the number in this split of the first row.
        """
        ends = np.cumsum(self.stored.sizes(self.numbers))
        while first < len(self):
            done = int(ends[first - 1]) if first else 0
            stop = min(int(np.searchsorted(ends, done + _AT_ONCE)) + 1, first + _MOST_ROWS, len(self))
            yield list(self.stored.read(self.numbers[first:stop])), int(ends[stop - 1]) - done
            first = stop


@dataclass(frozen=True)
class Texts:
    """The cells of columns of text, row by row."""

    rows: SplitRows
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.rows) * len(self.names)

    def __iter__(self) -> Iterator[str]:
        return (row[name] for row in self.rows for name in self.names)
