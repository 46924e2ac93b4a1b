"""Rows of val and test that are longer than the context: cut off like those of train, or read in windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.choices import chosen
from losslab.contracts import EvalWindows, Task
from losslab.data.columns import TOKENS
from losslab.errors import UserError


@dataclass(frozen=True)
class LongRows:
    """The rule for a row that is longer than the context, where it is evaluated or predicted.

    Args:
        context: positions of a window.
        stride: positions from the beginning of a window to that of the next; None: the row is cut off.
    """

    context: int
    stride: int | None = None

    def check(self) -> None:
        """Raises UserError for a stride that cannot be."""
        if self.stride is not None and not 0 < self.stride <= self.context:
            wanted = f"from 1 to data.context={self.context}, or null, which cuts off what is longer"
            raise UserError(f"data.eval_stride must be {wanted}, not {self.stride}")

    def check_task(self, task: Task) -> None:
        """Refuse windows for a task that reads not one sequence a row, or a sequence of several texts. Raises UserError
        naming the task."""
        if self.stride is None or not task.columns:
            return
        name = chosen("task", task)
        if task.joined:
            texts = " and ".join(task.joined)
            raise UserError(
                f"data.eval_stride={self.stride} reads one text in windows, and {name} makes one sequence of "
                f"{texts}, of which a window would hold a part: leave it null, and long rows are cut off"
            )
        if (count := sum(kind in TOKENS for kind in task.columns.values())) != 1:
            raise UserError(
                f"data.eval_stride={self.stride} reads one text in windows, and {name} has {count or 'no'} "
                "columns of text or words: leave it null"
            )

    def windows(self, at_once: int) -> EvalWindows | None:
        """As a batch carries them.

        Args:
            at_once: the most windows that the model reads in one call.
        """
        return None if self.stride is None else EvalWindows(self.context, self.stride, at_once)

    def parts(self, lengths: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
        """The places of K rows, batch by batch.

        Without windows they stand in their order, `most` in a batch. With windows, rows of fewer come first, in their
        order among those of equally many, and a batch has at most `most` windows, counted as if each of its rows had as
        many as the longest; a row that has more alone is a batch of its own.

        Args:
            lengths: [K], positions of each row.
        """
        windows = self.windows(most)
        if not len(lengths):
            return
        if windows is None:
            yield from np.split(np.arange(len(lengths)), range(most, len(lengths), most))
            return
        counts = np.array([windows.number(length) for length in lengths.tolist()])
        order, start = np.argsort(counts, kind="stable"), 0
        for i, count in enumerate(counts[order].tolist()):
            if i > start and (i + 1 - start) * count > most:
                yield order[start:i]
                start = i
        yield order[start:]

    def introduction(self, meta: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
        """A line for people: how many rows are read in windows, and that it is no note.

        Args:
            meta: of the store.
        """
        if self.stride is None:
            return
        found = " · ".join(f"{count:,} {split}" for split, count in meta["longer"].items())
        yield (
            f"       {found} rows are longer than data.context={self.context}: read in windows, {self.stride} apart",
            False,
        )

    def summary(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """The same for the record."""
        return {} if self.stride is None else {"in_windows": meta["longer"]}
