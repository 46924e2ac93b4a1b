"""Mean and standard deviation of train's frames, with which the frames of every split are standardised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.errors import UserError

Cell = tuple[int, bytes]
"""F, and the bytes of float32 [T, F]."""


@dataclass(frozen=True)
class FrameScale:
    """Statistics of a column of frames.

    Args:
        mean, std: float64 [F]; std is 1 where all frames of train agree.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @property
    def width(self) -> int:
        """F."""
        return len(self.mean)

    @classmethod
    def of(cls, name: str, cells: Iterable[Cell]) -> FrameScale:
        """The statistics of these cells, row by row (Chan et al. 1979). Raises UserError for rows of different F."""
        count, mean, squares = 0, np.zeros(0), np.zeros(0)
        for width, content in cells:
            frames = _array((width, content)).astype(np.float64)
            if not count:
                mean, squares = np.zeros(width), np.zeros(width)
            elif width != len(mean):
                raise UserError(f"{name} has {len(mean)} values a frame in one row and {width} in another")
            own, total = frames.mean(axis=0), count + len(frames)
            apart = own - mean
            squares = squares + np.square(frames - own).sum(axis=0) + np.square(apart) * (count * len(frames) / total)
            mean, count = mean + apart * (len(frames) / total), total
        std = np.sqrt(squares / max(count, 1))
        return cls(mean, np.where(std > 0, std, 1.0))

    def applied(self, name: str, cell: Cell) -> NDArray[np.float32]:
        """The frames of a cell, [T, F], less the mean, divided by the standard deviation. Raises UserError for another
        F."""
        if cell[0] != self.width:
            raise UserError(f"{name} has {cell[0]} values a frame in a row, and {self.width} in train")
        found: NDArray[np.float32] = ((_array(cell) - self.mean) / self.std).astype(np.float32)
        return found

    def stored(self) -> dict[str, list[float]]:
        """Plain values."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def restored(cls, content: Mapping[str, Any]) -> FrameScale:
        """The statistics that `stored` gave."""
        return cls(np.array(content["mean"], dtype=np.float64), np.array(content["std"], dtype=np.float64))


def _array(cell: Cell) -> NDArray[np.float32]:
    return np.frombuffer(cell[1], dtype="<f4").reshape(-1, cell[0])
