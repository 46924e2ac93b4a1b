"""Which samples make up a batch: shuffled passes over train, and each sample of a split to evaluate on once."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.data.store import DAMAGED, key_of, open_or_build, read_meta, write_meta

MOST_UNITS = 4096
"""Samples whose scores a run keeps apart; of more, neighbours are scored together."""
_MANY, _ORDER = 2**14, "order.npy"
"""From so many numbers on, an order of hashes is kept on disk: it takes a microsecond a number."""


def pass_order(count: int, seed: int, first: int, length: int) -> list[int]:
    """The samples at first … first + length − 1 of endless passes over `count` samples, each in a fresh order."""
    found: list[int] = []
    while len(found) < length:
        number, at = divmod(first + len(found), count)
        found += _pass(count, seed, number)[at : at + length - len(found)].tolist()
    return found


@lru_cache(maxsize=2)
def _pass(count: int, seed: int, number: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number]))).permutation(count)


def row_seeds(stream: str, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """[len(numbers)]: the seed of each number of a stream (SplitMix64)."""
    base = np.uint64(int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big"))
    mixed = base + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return found


class EvalSamples:
    """The samples of a split to evaluate on. Every other one of an order of hashes fits a calibrator.

    Args:
        order: [S], the samples in an order of hashes, of which a part of the split is the beginning.
        positions: [S], how many positions of each sample count.
    """

    unit = "sample"
    """The name of a unit."""

    def __init__(self, order: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        self.order = order
        self.positions = positions
        self.count = len(order)
        self.num_units = min(self.count, MOST_UNITS)
        self.units = np.arange(self.count) * self.num_units // max(self.count, 1)
        """[S]: the unit of each sample, whose scores are kept together."""
        self.fit = np.zeros(self.count, dtype=np.uint8)
        self.fit[order[::2]] = 1

    def choose(self, most: int | None, *, fit: bool = False) -> NDArray[np.int64]:
        """Samples in their order, [K]: all, or as many of the order of hashes as hold at most `most` positions, but at
        least one of each half. Fewer are always a part of more.

        Args:
            fit: of the half that fits a calibrator alone.
        """
        order = self.order[::2] if fit else self.order
        if most is not None:
            fewest = 1 if fit else 2
            order = order[: max(fewest, int(np.searchsorted(self.positions[order].cumsum(), most, side="right")))]
        return np.sort(order)

    def extras(self, chosen: NDArray[np.int64], weight: Tensor) -> dict[str, Tensor]:
        """`id`, `unit` and `fit` of these samples [B], the same at each position of a sample."""
        found = {"id": chosen, "unit": self.units[chosen], "fit": self.fit[chosen]}
        return {name: _spread(torch.from_numpy(values), weight) for name, values in found.items()}


def _spread(values: Tensor, weight: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (weight.ndim - 1)).expand(weight.shape).contiguous()


def count_positions(weight: Tensor) -> NDArray[np.int64]:
    """[B]: how many positions of each sample have a weight."""
    found: NDArray[np.int64] = (weight != 0).reshape(len(weight), -1).sum(dim=1).numpy()
    return found


def hashed_order(count: int, memory: Path | None = None) -> NDArray[np.int64]:
    """The numbers below `count` in the order of their hashes; of many, kept in the folder `memory`."""
    if memory is None or count < _MANY:
        return np.array(sorted(range(count), key=_hash), dtype=np.int64)

    def opened(folder: Path) -> NDArray[np.int64]:
        read_meta(folder)
        order: NDArray[np.int64] = np.load(folder / _ORDER)
        return order

    def write(folder: Path) -> None:
        np.save(folder / _ORDER, hashed_order(count))
        write_meta(folder, {"numbers": count})

    folder = memory / key_of({"order of hashes": count})
    try:
        return opened(folder)
    except DAMAGED:
        return open_or_build(folder, opened, write)


def _hash(window: int) -> int:
    return int.from_bytes(hashlib.sha256(window.to_bytes(8, "little")).digest()[:8], "big")
