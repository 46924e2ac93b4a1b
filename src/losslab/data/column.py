"""A column of a split, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import ColumnKind

NUMBERS: dict[ColumnKind, Any] = {
    "text": np.int32,
    "words": np.int32,
    "label": np.int64,
    "labels": np.int32,
    "tags": np.int32,
    "value": np.float64,
    "values": np.float64,
    "frames": np.float32,
    "characters": np.int32,
}
"""The type of the numbers of each kind."""
_FLOATS = ("value", "values")


@dataclass(frozen=True)
class Column:
    """A column of a split, encoded."""

    kind: ColumnKind
    values: NDArray[Any]
    """[N], or of all rows one after the other."""
    ends: NDArray[np.int64] | None
    """[N]: where each row ends in `values`; None where each has one."""
    width: int = 1
    """F of frames: the numbers that are one input."""

    def lengths(self) -> NDArray[np.int64]:
        """[N]: how many numbers each row has, or frames."""
        if self.ends is None:
            return np.ones(len(self.values), dtype=np.int64)
        return np.diff(self.ends, prepend=0) // self.width

    def __getitem__(self, row: int) -> int | float | Tensor:
        if self.ends is None:
            found: int | float = self.values[row].item()
            return found
        part = self.values[self.ends[row - 1] if row else 0 : self.ends[row]]
        if self.kind == "frames":
            return torch.from_numpy(part.astype(np.float32)).reshape(-1, self.width)
        return torch.from_numpy(part.astype(np.float64 if self.kind in _FLOATS else np.int64))


def column_of(kind: ColumnKind, found: list[list[Any]]) -> Column:
    """The column of rows that have any number of entries each."""
    ends = np.cumsum([len(numbers) for numbers in found], dtype=np.int64)
    return Column(kind, np.array([n for numbers in found for n in numbers], dtype=NUMBERS[kind]), ends)
