"""A few rows of each class of train: learning from as many examples of every class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.data.cells import Columns
from losslab.data.column import Column
from losslab.data.columns import target_of
from losslab.data.label_noise import uniform
from losslab.data.row_store import RowStore
from losslab.errors import UserError

_DRAW = 2
"""The number of this draw, beside those of label noise."""


@dataclass(frozen=True)
class PerClass:
    """The rows of train that are kept.

    Args:
        count: rows of each class; None: all of train. A class with fewer keeps what it has.
        seed: of the choice; None: the run's.
    """

    count: int | None = None
    seed: int | None = None

    def check(self) -> None:
        """Raises UserError for values that cannot be."""
        if self.count is not None and self.count <= 0:
            raise UserError(f"data.per_class must be above 0, or null for all rows, not {self.count}")
        if self.seed is not None and (self.count is None or self.seed < 0):
            wrong = "goes with data.per_class" if self.count is None else f"must be 0 or above, not {self.seed}"
            raise UserError(f"data.per_class_seed {wrong}")

    def check_columns(self, columns: Columns, task: str) -> None:
        """Refuse a task whose target is not one label. Raises UserError naming the task."""
        target = target_of(columns)
        if self.count is not None and (target is None or columns[target] != "label"):
            raise UserError(f"data.per_class counts the one label of each row, and the target of {task} is none")

    def choose(self, store: RowStore, seed: int) -> RowStore:
        """The store with these rows of train alone, in their order: a function of seed and each row's inputs, so that
        more rows of a class hold the fewer ones.

        Args:
            seed: the data's.
        """
        target = target_of(store.meta["settings"]["kinds"])
        if self.count is None or target is None:
            return store
        labels = np.asarray(store.columns["train"][target].values)
        order = np.argsort(
            uniform(store.hashes["train"], seed if self.seed is None else self.seed, _DRAW), kind="stable"
        )
        by_class = (order[labels[order] == label][: self.count] for label in range(store.meta["num_classes"]))
        rows = np.sort(np.concatenate(list(by_class)))
        counts = np.bincount(labels[rows], minlength=store.meta["num_classes"]).tolist()
        meta = store.meta | {"class_counts": counts, "chosen": len(rows)}
        columns = store.columns | {"train": {name: _rows_of(c, rows) for name, c in store.columns["train"].items()}}
        return replace(store, meta=meta, columns=columns, hashes=store.hashes | {"train": store.hashes["train"][rows]})

    def told(self, meta: dict[str, Any]) -> Iterator[str]:
        """A line for people; none where all rows are kept."""
        if self.count is not None:
            few = sum(count < self.count for count in meta["class_counts"])
            fewer = f"; {few:,} classes have fewer" if few else ""
            yield (
                f"chosen {meta['chosen']:,} of {meta['rows']['train']:,} rows of train: {self.count:,} of each of "
                f"{meta['num_classes']:,} classes{fewer}"
            )

    def summary(self, meta: dict[str, Any]) -> dict[str, Any]:
        """The choice, for the record; empty where all rows are kept."""
        return {} if self.count is None else {"per_class": self.count, "chosen": meta["chosen"]}


def _rows_of(column: Column, rows: NDArray[np.int64]) -> Column:
    if column.ends is None:
        return replace(column, values=np.asarray(column.values)[rows])
    lengths = column.lengths()[rows]
    parts = [column.values[end - length : end] for end, length in zip(column.ends[rows], lengths, strict=True)]
    return replace(column, values=np.concatenate(parts), ends=np.cumsum(lengths, dtype=np.int64))
