"""The endless order of train's rows, and which of its places make up an optimizer step: functions of the seed alone.

A place is a number in that order, from 0; a pass is `count` places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from losslab.contracts import Share
from losslab.data.sampler import pass_order

_WIDER = 1.1
"""Ratio of the bounds of neighbouring buckets."""
_KEPT_PASSES = 2


class RowOrder(ABC):
    """An order of rows.

    Args:
        count: rows of train.
        seed: the data's.
        batch_size: rows in a step.
    """

    def __init__(self, *, count: int, seed: int, batch_size: int) -> None:
        self.count = count
        self.seed = seed
        self.batch_size = batch_size
        self.samples_per_step = float(batch_size)
        self._passes: dict[int, NDArray[np.int64]] = {}

    def places(self, step: int, share: Share) -> range:
        """The places that a share of a step covers; none where a step has fewer rows than shares."""
        rows = share.rows(self.batch_size)
        return range(step * self.batch_size + rows.start, step * self.batch_size + rows.stop)

    def rows(self, places: range) -> list[int]:
        """The rows at these places."""
        found: list[int] = []
        at = places.start
        while at < places.stop:
            number, begin = divmod(at, self.count)
            found += self._kept(number)[begin : begin + places.stop - at].tolist()
            at = places.start + len(found)
        return found

    def _kept(self, number: int) -> NDArray[np.int64]:
        if number not in self._passes:
            self._passes = dict(list(self._passes.items())[1 - _KEPT_PASSES :])
            self._passes[number] = self.make_pass(number)
        return self._passes[number]

    @abstractmethod
    def make_pass(self, number: int) -> NDArray[np.int64]:
        """The rows of a pass, [count]."""


class Shuffled(RowOrder):
    """Each pass visits every row once, in a fresh order."""

    def make_pass(self, number: int) -> NDArray[np.int64]:
        return np.array(pass_order(self.count, self.seed, number * self.count, self.count), dtype=np.int64)


class Balanced(RowOrder):
    """Class c, of n_c rows, has a share of each pass that is proportional to n_c^(1 − balance).

    Within a pass the rows of a class are drawn equally often, or once more; which ones, each pass decides.

    Args:
        labels: [count], classes.
        balance: from 0 (as the rows are) to 1 (each class as often).
    """

    def __init__(self, *, labels: NDArray[np.int64], balance: float, seed: int, batch_size: int) -> None:
        super().__init__(count=len(labels), seed=seed, batch_size=batch_size)
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels)
        self.members = [rows for rows in np.split(order, sizes.cumsum()[:-1]) if len(rows)]
        sizes = sizes[sizes > 0].astype(np.float64)
        wanted = sizes ** (1 - balance)
        self.quotas = wanted / wanted.sum() * self.count
        """[classes that occur]: draws of each in a pass, on average."""

    def make_pass(self, number: int) -> NDArray[np.int64]:
        draws = _generator(self.seed, number)
        whole = np.floor(self.quotas).astype(np.int64)
        rest, missing = self.quotas - whole, self.count - int(whole.sum())
        if missing:
            whole[draws.choice(len(whole), missing, replace=False, p=rest / rest.sum())] += 1
        found = []
        for rows, times in zip(self.members, whole.tolist(), strict=True):
            found += [rows] * (times // len(rows)) + [draws.permutation(rows)[: times % len(rows)]]
        return draws.permutation(np.concatenate(found))


class Bucketed(RowOrder):
    """Steps of rows of similar length: rows × the upper bound of the longest one's bucket is at most `batch_tokens`.

    Rows are shuffled within buckets, whose bounds grow by a tenth, and cut into steps from the shortest to the longest;
    the steps of a pass come in a fresh order. A pass has always the same number of steps.

    Args:
        lengths: [count], tokens of each row.
        batch_tokens: tokens of a step, padding included; at least the longest row.
        batch_size: the most rows of a step.
    """

    def __init__(self, *, lengths: NDArray[np.int64], batch_tokens: int, seed: int, batch_size: int) -> None:
        super().__init__(count=len(lengths), seed=seed, batch_size=batch_size)
        bounds = _bounds(int(lengths.max()))
        self.buckets = np.searchsorted(bounds, lengths)
        most = np.minimum(batch_size, batch_tokens // bounds)
        self.cuts = _cut(np.bincount(self.buckets, minlength=len(bounds)).cumsum(), most)
        """[steps + 1]: where each step of a pass begins among the rows from the shortest to the longest."""
        self.steps = len(self.cuts) - 1
        self.samples_per_step = self.count / self.steps
        self._order: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def places(self, step: int, share: Share) -> range:
        number, at = divmod(step, self.steps)
        _, ends = self._steps_of(number)
        end = int(ends[at])
        start = int(ends[at - 1]) if at else 0
        part, parts = share.micro * share.ranks + share.rank, share.ranks * share.micros
        size, first = end - start, number * self.count + start
        return range(first + part * size // parts, first + (part + 1) * size // parts)

    def _steps_of(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[steps] each: the order of a pass's steps, and where each ends among the places of the pass."""
        if self._order is None or self._order[0] != number:
            order = _generator(self.seed, number, 1).permutation(self.steps)
            self._order = (number, order, np.diff(self.cuts)[order].cumsum())
        return self._order[1:]

    def make_pass(self, number: int) -> NDArray[np.int64]:
        shuffled = _generator(self.seed, number).permutation(self.count)
        by_length = shuffled[np.argsort(self.buckets[shuffled], kind="stable")]
        order, _ = self._steps_of(number)
        return np.concatenate([by_length[self.cuts[step] : self.cuts[step + 1]] for step in order])


def padding(lengths: NDArray[np.int64], steps: Sequence[Sequence[int]]) -> float:
    """The share of padding among the tokens of steps, each as wide as its longest row.

    Args:
        lengths: [N, K], of K sequences of a row that are padded apart.
    """
    filled = sum(int(lengths[rows].sum()) for rows in steps)
    return 1 - filled / sum(len(rows) * int(lengths[rows].max(axis=0).sum()) for rows in steps)


def _bounds(longest: int) -> NDArray[np.int64]:
    """Upper bounds of buckets of lengths, the last one the longest."""
    found = [min(8, longest)]
    while found[-1] < longest:
        found.append(min(longest, max(found[-1] + 1, int(found[-1] * _WIDER))))
    return np.array(found, dtype=np.int64)


def _cut(ends: NDArray[np.int64], most: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where steps begin among rows sorted by bucket, and the end.

    Args:
        ends: where each bucket's rows end.
        most: the rows of a step whose longest is in each bucket; falls from bucket to bucket.
    """
    cuts, bucket, count = [0], 0, int(ends[-1])
    while (start := cuts[-1]) < count:
        while ends[bucket] <= start:
            bucket += 1
        stop, last = min(int(ends[bucket]), start + int(most[bucket])), bucket
        while stop == ends[last] and stop < count and start + most[last + 1] > stop:
            last += 1
            stop = min(int(ends[last]), start + int(most[last]))
        cuts.append(stop)
    return np.array(cuts, dtype=np.int64)


def _generator(seed: int, *numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *numbers])))
