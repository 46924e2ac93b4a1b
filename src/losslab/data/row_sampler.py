"""Rows of batches: shuffled passes over train, and each row of a split once."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_UNITS = 4096
"""Rows whose scores a run keeps apart; of more, neighbours are scored together."""


def pass_order(count: int, seed: int, first: int, length: int) -> list[int]:
    """The rows at first … first + length − 1 of endless passes over `count` rows, each in a fresh order."""
    found: list[int] = []
    while len(found) < length:
        number, at = divmod(first + len(found), count)
        found += _pass(count, seed, number)[at : at + length - len(found)].tolist()
    return found


@lru_cache(maxsize=2)
def _pass(count: int, seed: int, number: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number]))).permutation(count)


class EvalRows:
    """The rows of a split to evaluate on.

    Args:
        hashes: uint64 [N], of each row's inputs.
        positions: [N], that each row has.
    """

    def __init__(self, hashes: NDArray[Any], positions: Tensor) -> None:
        self.positions = positions.numpy()
        self.count = len(hashes)
        self.num_units = min(self.count, MOST_UNITS)
        # The low bits come first: the high ones have decided about the split.
        self.order = np.argsort(_reversed_bits(np.asarray(hashes)), kind="stable")
        self.fit = np.zeros(self.count, dtype=np.uint8)
        self.fit[self.order[1::2]] = 1

    def choose(self, most: int | None) -> NDArray[np.int64]:
        """Rows in their order, [K]: all, or as many in an order of hashes as have `most` positions, but at least one of
        each half. Fewer are always a part of more."""
        if most is None or most >= int(self.positions.sum()):
            return np.arange(self.count)
        fitting = int(np.searchsorted(self.positions[self.order].cumsum(), most, side="right"))
        return np.sort(self.order[: max(2, fitting)])

    def choose_fit(self, most: int | None) -> NDArray[np.int64]:
        """The same, of the half that fits a temperature alone."""
        order = self.order[self.fit[self.order] == 1]
        if most is None:
            return np.sort(order)
        fitting = int(np.searchsorted(self.positions[order].cumsum(), most, side="right"))
        return np.sort(order[: max(1, fitting)])

    def num_positions(self, most: int | None) -> int:
        """The number of positions in the rows of `choose(most)`."""
        return int(self.positions[self.choose(most)].sum())

    def extras(self, rows: Tensor) -> dict[str, Tensor]:
        """The extras of each row [B]: `fit`, `unit` and `id`."""
        return {
            "fit": self._fit[rows],
            "unit": (rows * self.num_units // self.count).int(),
            "id": rows,
        }

    @cached_property
    def _fit(self) -> Tensor:
        return torch.from_numpy(self.fit)


def _reversed_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bytes in reverse, which orders by the last byte first."""
    return values.astype("<u8").byteswap().view("<u8")
