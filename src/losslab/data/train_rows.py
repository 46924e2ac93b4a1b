"""The rows of train as a run sees them: labels flipped once and for all, and changes drawn for each sample."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.contracts import Task
from losslab.data.augmentation import Augmentation, RowChanges
from losslab.data.columns import target_of
from losslab.data.label_noise import noisy_labels
from losslab.data.row_store import RowStore
from losslab.data.sampler import pass_order
from losslab.data.tokenizer import tokenizer_of


class TrainRows:
    """Rows of train under a seed.

    Args:
        store: prepared.
        task: whose examples they become.
        seed: the data's.
    """

    def __init__(self, store: RowStore, task: Task, augmentation: Augmentation, seed: int) -> None:
        self.store = store
        self.task = task
        self.augmentation = augmentation
        self.seed = seed
        self.target = target_of(task.columns)
        tokenizer = tokenizer_of(store.meta["artifacts"])
        self.changes = RowChanges(augmentation, task.columns, None if tokenizer is None else tokenizer.end, seed)

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """[N]: the classes that train has after label noise; None without it."""
        if not self.augmentation.label_noise or self.target is None:
            return None
        asked = self.augmentation.label_noise_seed
        return noisy_labels(
            self._true,
            self.store.hashes["train"],
            self.store.meta["num_classes"],
            share=self.augmentation.label_noise,
            kind=self.augmentation.label_noise_kind,
            seed=self.seed if asked is None else asked,
        )

    @property
    def _true(self) -> NDArray[np.int64]:
        assert self.target is not None
        return np.asarray(self.store.columns["train"][self.target].values)

    def flipped(self) -> int | None:
        """The number of rows whose label is not the true one; None without label noise."""
        return None if self.labels is None else int((self.labels != self._true).sum())

    def class_counts(self) -> list[int] | None:
        """How often each class is a target, after label noise; None where targets are no classes."""
        if self.labels is None:
            counts: list[int] | None = self.store.meta["class_counts"]
            return counts
        found: list[int] = np.bincount(self.labels, minlength=self.store.meta["num_classes"]).tolist()
        return found

    def rows_at(self, first: int, length: int) -> list[int]:
        """The rows at `length` places of the endless order of train, from `first` on: passes, each in a fresh order."""
        return pass_order(self.store.count("train"), self.seed, first, length)

    def example(self, row: int, place: int) -> Any:
        """The task's example of a row at a place of the endless order of train."""
        cells: dict[str, Any] = self.store.row("train", row)
        if self.labels is not None and self.target is not None:
            cells[self.target] = int(self.labels[row])
        return self.task.example(self.changes(cells, place))

    def summary(self) -> dict[str, Any]:
        """The changes, for the record; empty where there are none."""
        settings = self.augmentation.settings()
        if not settings:
            return {}
        flipped = self.flipped()
        noise = {} if flipped is None else {"flipped": flipped, "flipped_share": flipped / self.store.count("train")}
        return {"augment": settings | noise}

    def told(self) -> Iterator[str]:
        """Lines for people; none where nothing is changed."""
        settings = self.augmentation.settings()
        drawn = {name: value for name, value in settings.items() if not name.startswith("label_noise")}
        if drawn:
            yield f"change {' · '.join(f'{name} {value:g}' for name, value in drawn.items())} (train alone)"
        flipped = self.flipped()
        if flipped is not None:
            count, classes = self.store.count("train"), self.store.meta["num_classes"]
            to = f"one of the {classes - 1:,} other classes" if classes > 2 else "the other class"
            if self.augmentation.label_noise_kind == "pair":
                to = "the next class"
            yield (
                f"noise  {flipped:,} of {count:,} labels of train ({flipped / count:.1%}) are flipped to {to}; val and "
                "test keep theirs"
            )
