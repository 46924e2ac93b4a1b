"""Fixed-length windows over a stream of tokens: which ones make up batch k, and one gather to fetch them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Batch, Windows, next_tokens
from losslab.data.encoding import TokenSplit
from losslab.data.sampler import hashed_order, row_seeds


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


Form = Callable[[Windows, NDArray[np.uint64]], Batch]
"""Makes a batch of windows; the numbers seed what is drawn for each (`Task.draw`)."""


def plain_form(windows: Windows, seeds: NDArray[np.uint64]) -> Batch:
    """The next token at every position."""
    return next_tokens(windows)


def gather(
    tokens: NDArray[Any], starts: NDArray[np.int64], context: int, ends: NDArray[np.int64] | None = None
) -> Windows:
    """The windows of one training batch, [len(starts), context + 1].

    Args:
        ends: where each document of the stream ends, if documents are to be told apart.
    """
    at = starts[:, None] + np.arange(context + 1)
    window = torch.from_numpy(tokens[at].astype(np.int64))
    return Windows(window, torch.ones(len(starts), context), {}, number_documents(ends, at), full=True)


def number_documents(ends: NDArray[np.int64] | None, at: NDArray[np.int64]) -> Tensor | None:
    """The number of the document at each of these places of the stream [B, T + 1], counted from 0 in each window."""
    if ends is None:
        return None
    found = np.searchsorted(ends, at, side="right")
    _, distinct = np.unique(found, return_inverse=True)  # documents without a token are not counted
    distinct = distinct.reshape(found.shape)
    return torch.from_numpy(distinct - distinct[:, :1])


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
    """Windows over a whole split: every token but the first is predicted exactly once.

    Args:
        stride: how far each window begins after the one before it; it scores the tokens that this one did not reach.
            Default: the context, so that they stand side by side.
        packed: documents are told apart.
        skips_starts: the task does not predict the first token of a document, either.
        form: makes a batch of windows.
        name: of the split, for the seeds of what is drawn.
        by_window: every other window is the fitting half (of a single window its first half), for splits with too few
            documents to halve; and windows, not documents, are the units that are scored apart.
        memory: a folder that keeps the order of hashes of many windows.
    """

    def __init__(
        self,
        split: TokenSplit,
        context: int,
        *,
        by_window: bool,
        stride: int | None = None,
        packed: bool = False,
        skips_starts: bool = False,
        form: Form = plain_form,
        name: str = "",
        memory: Path | None = None,
    ) -> None:
        self.memory = memory
        self.split = split
        self.context = context
        self.by_window = by_window
        self.stride = context if stride is None else stride
        self.packed = packed
        self.skips_starts = skips_starts
        self.form = form
        self.name = name
        self.count = max(1, -(-(len(split.tokens) - 1 - context) // self.stride) + 1)
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
        if most is None and not self.skips_starts:
            return np.asarray(self.split.tokens[1:])
        first, last = self._scored(self.choose(most))
        at = np.concatenate([np.arange(*span) for span in zip(first, last, strict=True)])
        return np.asarray(self.split.tokens[np.setdiff1d(at, self._starts) if self.skips_starts else at])

    def _scored(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first of the tokens that each window predicts, and the end of them: those that the one before it did not
        reach."""
        first = windows * self.stride + 1 + np.where(windows > 0, self.context - self.stride, 0)
        return first, np.minimum(windows * self.stride + 1 + self.context, len(self.split.tokens))

    def _sizes(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        first, last = self._scored(windows)
        if not self.skips_starts:
            return last - first
        return last - first - (np.searchsorted(self._starts, last) - np.searchsorted(self._starts, first))

    def _holds(self, window: int, *, fit: bool) -> bool:
        """Whether a window has positions of the fitting half, or of the other."""
        batch = self.batch(np.array([window]))
        return bool(((batch.extras["fit"] == fit) & (batch.weight != 0)).any())

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return hashed_order(self.count, self.memory)

    def batch(self, windows: NDArray[np.int64]) -> Batch:
        """A batch of these windows; beyond the end of the split, and where the window before scores, the weight is
        0."""
        return self.form(self._windows(windows), row_seeds(f"evaluation/{self.name}", windows))

    def _windows(self, windows: NDArray[np.int64]) -> Windows:
        at = windows[:, None] * self.stride + np.arange(self.context + 1)
        inside = at < len(self.split.tokens)
        inside &= at >= self._scored(windows)[0][:, None]
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
        return Windows(tokens, weight, extras, number_documents(self._ends if self.packed else None, at))

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

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where documents begin that have a token, but the first."""
        ends = np.unique(self._ends)
        return ends[(ends > 0) & (ends < len(self.split.tokens))]

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
            number = np.array([window])
            batch = self.batch(number)
            if not bool((batch.extras["fit"] * batch.weight).any()):
                continue
            read = self._windows(number)  # of which a task may score a part
            found = int((read.extras["fit"] * read.weight).sum())
            if chosen and positions + found > most:
                break
            chosen.append(window)
            positions += found
        return chosen
