"""Fixed-length windows over a stream of tokens: which ones make up batch k, and one gather to fetch them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from losslab.contracts import Batch
from losslab.data.cache import TokenSplit
from losslab.data.sampler import hashed_order


@dataclass(frozen=True)
class TrainOrder:
    """The endless order of training windows: a pure function of (seed, position).

    Each pass over the data cuts it at a fresh offset and visits every window once, in a fresh order.
    """

    num_tokens: int
    context: int
    seed: int
    """The data_order stream."""

    def starts(self, first: int, count: int) -> NDArray[np.int64]:
        """Starts of the sequences first … first + count − 1 in the stream, [count]."""
        windows = (self.num_tokens - 1) // self.context
        found = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            epoch, position = divmod(first + done, windows)
            taken = min(count - done, windows - position)
            order, offset = _epoch(self.seed, epoch, windows, self.num_tokens - 1 - windows * self.context)
            found[done : done + taken] = order[position : position + taken] * self.context + offset
            done += taken
        return found


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, windows: int, slack: int) -> tuple[NDArray[np.int64], int]:
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return random.permutation(windows), int(random.integers(0, slack + 1))


def gather(tokens: NDArray[Any], starts: NDArray[np.int64], context: int) -> Batch:
    """One training batch, [len(starts), context]."""
    window = torch.from_numpy(tokens[starts[:, None] + np.arange(context + 1)].astype(np.int64))
    return Batch({"tokens": window[:, :-1]}, window[:, 1:], torch.ones(len(starts), context), {})


def hash_batches(tokens: NDArray[Any], order: TrainOrder, batch_size: int, count: int) -> str:
    """SHA-256 of the tokens in the first `count` batches: the proof that two runs saw the same data."""
    digest = hashlib.sha256()
    for k in range(count):
        starts = order.starts(k * batch_size, batch_size)
        digest.update(tokens[starts[:, None] + np.arange(order.context + 1)].astype("<u4").tobytes())
    return digest.hexdigest()


MOST_UNITS = 4096
"""Documents whose scores a run keeps apart; of more, neighbours are scored together."""


class EvalWindows:
    """Windows side by side over a whole split: every token but the first is predicted exactly once.

    Args:
        by_window: every other window is the fitting half (of a single window its first half), for splits with too few
            documents to halve; and windows, not documents, are the units that are scored apart.
        memory: a folder that keeps the order of hashes of many windows.
    """

    def __init__(self, split: TokenSplit, context: int, *, by_window: bool, memory: Path | None = None) -> None:
        self.memory = memory
        self.split = split
        self.context = context
        self.by_window = by_window
        self.count = -(-(len(split.tokens) - 1) // context)
        found = self.count if by_window else len(split.lengths)
        self.num_units = min(found, MOST_UNITS)
        self._merged = found / self.num_units
        self._fit_windows: dict[int, list[int]] = {}
        self._chosen: dict[int, NDArray[np.int64]] = {}

    def batches(self, batch_size: int, *, rank: int = 0, ranks: int = 1, most: int | None = None) -> Iterator[Batch]:
        """Every window of `choose(most)` once, shared out among the ranks; all of them get as many batches (sharded
        networks need every rank at every forward), the last perhaps with weight 0 alone."""
        chosen = self.choose(most)
        mine = chosen[rank::ranks]
        for i in range(0, -(-len(chosen) // ranks), batch_size):
            windows = mine[i : i + batch_size]
            if len(windows):
                yield self.batch(windows)
            else:
                idle = self.batch(np.array([0]))
                yield idle._replace(weight=torch.zeros_like(idle.weight))

    def choose(self, most: int | None) -> NDArray[np.int64]:
        """Windows in their order, [K]: all, or as many of an order of hashes as hold at most `most` positions, but at
        least one; both halves of the split are among them. Fewer positions are always a part of more."""
        if most is None or most >= len(self.split.tokens) - 1:
            return np.arange(self.count)
        if most not in self._chosen:
            ends = self._sizes(self._order).cumsum()
            count = max(1, int(np.searchsorted(ends, most, side="right")))
            chosen = list(self._order[:count])
            for half in (True, False):
                if not any(self._holds(window, fit=half) for window in chosen):
                    chosen += [w for w in self._order[count:] if self._holds(w, fit=half)][:1]
            self._chosen[most] = np.sort(np.array(chosen, dtype=np.int64))
        return self._chosen[most]

    def num_positions(self, most: int | None) -> int:
        """The number of tokens that the windows of `choose(most)` predict."""
        return int(self._sizes(self.choose(most)).sum())

    def targets(self, most: int | None) -> NDArray[Any]:
        """The tokens that the windows of `choose(most)` predict."""
        if most is None:
            return np.asarray(self.split.tokens[1:])
        at = (self.choose(most)[:, None] * self.context + np.arange(1, self.context + 1)).ravel()
        return np.asarray(self.split.tokens[at[at < len(self.split.tokens)]])

    def _sizes(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.minimum(self.context, len(self.split.tokens) - 1 - windows * self.context)

    def _holds(self, window: int, *, fit: bool) -> bool:
        """Whether a window has positions of the fitting half, or of the other."""
        batch = self.batch(np.array([window]))
        return bool(((batch.extras["fit"] == fit) & (batch.weight != 0)).any())

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return hashed_order(self.count, self.memory)

    def batch(self, windows: NDArray[np.int64]) -> Batch:
        """These windows; beyond the end of the split the weight is 0."""
        at = windows[:, None] * self.context + np.arange(self.context + 1)
        inside = at < len(self.split.tokens)
        at = np.minimum(at, len(self.split.tokens) - 1)
        tokens = torch.from_numpy(self.split.tokens[at].astype(np.int64))
        target_at = at[:, 1:]
        fit = self.split.fit[target_at]
        if self.by_window and self.count > 1:
            fit = np.repeat((windows[:, None] + 1) % 2, self.context, axis=1)
        elif self.by_window:
            fit = (np.arange(self.context) < np.count_nonzero(inside[:, 1:]) // 2)[None]
        extras = {
            "bytes": torch.from_numpy(self.split.bytes[target_at].astype(np.float32)),
            "fit": torch.from_numpy(fit.astype(np.uint8)),
            "unit": torch.from_numpy(self._units(windows, target_at)),
        }
        weight = torch.from_numpy(inside[:, 1:].astype(np.float32))
        return Batch({"tokens": tokens[:, :-1]}, tokens[:, 1:], weight, extras)

    def _units(self, windows: NDArray[np.int64], target_at: NDArray[np.int64]) -> NDArray[np.int32]:
        """The number of the document (or window) of each target; neighbours share a number where there are many."""
        if self.by_window:
            found = np.repeat(windows[:, None], self.context, axis=1)
        else:
            found = np.searchsorted(self._ends, target_at, side="right")
        return (found / self._merged).astype(np.int32)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.asarray(self.split.lengths, dtype=np.int64).cumsum()

    def fit_batches(self, batch_size: int, most: int) -> Iterator[Batch]:
        """Windows in an order of hashes that hold at most `most` positions of the fitting half, but at least one."""
        if most not in self._fit_windows:
            self._fit_windows[most] = self._choose(most)
        chosen = self._fit_windows[most]
        for i in range(0, len(chosen), batch_size):
            yield self.batch(np.array(chosen[i : i + batch_size]))

    def _choose(self, most: int) -> list[int]:
        chosen: list[int] = []
        positions = 0
        for window in self._order.tolist():
            batch = self.batch(np.array([window]))
            found = int((batch.extras["fit"] * batch.weight).sum())
            if found and chosen and positions + found > most:
                break
            if found:
                chosen.append(window)
                positions += found
        return chosen
