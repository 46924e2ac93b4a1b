"""Data modules over datasets of samples: order, shares and evaluation, whatever a sample is."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import Batch, DataInfo, DataModule, Share, SplitInfo, Subset, Task
from losslab.data.sampler import EvalSamples, count_positions, hashed_order, pass_order
from losslab.errors import UserError

_READ_AT_ONCE = 256


class _Split(NamedTuple):
    """A split of a data set, as `prepare` found it."""

    samples: Sequence[Any]
    sampler: EvalSamples


class SamplesDataModule(DataModule):
    """Samples out of datasets that are indexed: `len(samples)`, `samples[i]`.

    A subclass writes `datasets`, and sets of `vocab_size`, `frame_width`, `num_classes`, `class_names` and `num_values`
    what its samples have. The task makes a batch of samples: `task.collate([task.example(sample), …])`. Each pass over
    train visits every sample once, in an order of (seed, pass). Batches carry the extras `id` (number of the sample in
    its split), `unit` (the same, or of neighbours together where there are more than 4,096) and `fit` (1 for the half
    that fits a calibrator).

    Args:
        batch_size: samples in one optimizer step, over all devices and micro-batches.
        val_batch_size: samples evaluated at once on each device.
        num_workers: processes that make batches; 0: the training process.
    """

    vocab_size: int | None = None
    """V, where inputs are tokens."""
    frame_width: int | None = None
    """F, where inputs are vectors (`frames`, float [B, T, F])."""
    num_classes: int | None = None
    """The number of classes, where targets are classes of their own."""
    class_names: tuple[str, ...] | None = None
    """[num_classes], where classes have names."""
    num_values: int | None = None
    """K, where targets are values."""

    def __init__(self, *, batch_size: int, val_batch_size: int = 32, num_workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size)
        for name, size in (("batch_size", batch_size), ("val_batch_size", val_batch_size)):
            if size <= 0:
                raise UserError(f"data.{name} must be above 0, not {size}")
        if num_workers < 0:
            raise UserError(f"data.num_workers must be 0 or above, not {num_workers}")
        self.num_workers = num_workers
        self._splits: dict[str, _Split] = {}

    @abstractmethod
    def datasets(self) -> Mapping[str, Sequence[Any]]:
        """The samples of each of `splits`. Read here, not in the constructor, which runs before anything is decided."""

    def files(self) -> Mapping[str, Path | Sequence[Path]]:
        """Dotted key → the files that it names (`{"data.path": [Path(self.path) / "train.csv", …]}`), whose content is
        part of a run's identity. Default: none."""
        return {}

    def artifacts(self) -> dict[str, str]:
        """Contents of `DataInfo.artifacts`. Default: none."""
        return {}

    def check_task(self, task: Task) -> None:
        """Raises UserError for a task that makes no batches of samples."""
        if type(task).collate is Task.collate:
            raise UserError(
                f"{chosen('task', task)} has no collate, which makes a batch of the samples that "
                f"{type(self).__name__} gives: choose another task, or write it"
            )

    def content_hashes(self, task: Task) -> dict[str, str]:
        """The hash of each of `files`."""
        return {
            key: _hash_files(key, [paths] if isinstance(paths, Path) else paths) for key, paths in self.files().items()
        }

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        """Read the datasets and pass over each once, for the sizes of its samples and how often each class occurs.

        Raises:
            UserError: for a split that is missing or empty, and for a class that there is not.
        """
        found = self.datasets()
        for split in self.splits:
            if not len(found.get(split, ())):
                raise UserError(f"data: {type(self).__name__}.datasets gives no samples for its split {split}")
        self._task = task
        size = self.vocab_size if self.num_classes is None else self.num_classes
        counts = None if size is None else torch.zeros(size, dtype=torch.float64)
        splits = {}
        for split in self.splits:
            samples = found[split]
            sampler = self.sampler(split, samples, counts if split == "train" else None)
            self._splits[split] = _Split(samples, sampler)
            size = int(sampler.positions.sum())
            splits[split] = SplitInfo(size, sampler.num_units, sampler.unit, samples=len(samples))
        return DataInfo(
            splits=splits,
            mean_positions=float(self._splits["train"].sampler.positions.mean()),
            vocab_size=self.vocab_size,
            frame_width=self.frame_width,
            num_classes=self.num_classes,
            class_names=self.class_names,
            num_values=self.num_values,
            class_counts=counts if counts is not None and counts.any() else None,
            artifacts=self.artifacts(),
        )

    def sampler(self, split: str, samples: Sequence[Any], counts: Tensor | None) -> EvalSamples:
        """The order of a split's samples for evaluation, and the positions of each. Default: all samples are read.

        Args:
            counts: float64 [classes], to which those of the samples are added.
        """
        return EvalSamples(hashed_order(len(samples)), self._read(samples, counts))

    def _read(self, samples: Sequence[Any], counts: Tensor | None) -> NDArray[np.int64]:
        """The positions of each sample; classes are added to `counts`, where targets are classes."""
        positions = np.zeros(len(samples), dtype=np.int64)
        for i in range(0, len(samples), _READ_AT_ONCE):
            rows = np.arange(i, min(i + _READ_AT_ONCE, len(samples)))
            batch = self._collate(samples, rows)
            positions[rows] = count_positions(batch.weight)
            if counts is not None and batch.target.dtype == torch.int64 and batch.target.shape == batch.weight.shape:
                classes = batch.target[batch.weight != 0]
                if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < len(counts):
                    wrong = next(c for c in (int(classes.min()), int(classes.max())) if not 0 <= c < len(counts))
                    raise UserError(
                        f"data: a target of {type(self).__name__} is the class {wrong}, and there are {len(counts)}, "
                        "from 0: num_classes (or vocab_size, where targets are tokens) says how many"
                    )
                counts += torch.bincount(classes, minlength=len(counts)).double()
        return positions

    def train_batch(self, step: int, share: Share) -> Batch:
        """The samples [step · B, (step + 1) · B) of the endless order, as far as they are the share's."""
        rows = share.rows(self.batch_size)
        count = len(self._splits["train"].samples)
        chosen = pass_order(count, self.seed, step * self.batch_size + rows.start, rows.stop - rows.start)
        return self._batch("train", np.array(chosen, dtype=np.int64))

    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterator[Batch]:
        """The samples of a split in their order; of a part of it, those that hold at most `most` positions, at least
        one of each half."""
        chosen = self._splits[split].sampler.choose(most, fit=subset == "fit")[share.rank :: share.ranks]
        for i in range(0, len(chosen), self.val_batch_size):
            yield self._batch(split, chosen[i : i + self.val_batch_size])

    def _batch(self, split: str, chosen: NDArray[np.int64]) -> Batch:
        """These samples, with the extras that say which they are."""
        found = self._splits[split]
        batch = self._collate(found.samples, chosen)
        return batch._replace(extras={**found.sampler.extras(chosen, batch.weight), **batch.extras})

    def _collate(self, samples: Sequence[Any], chosen: NDArray[np.int64]) -> Batch:
        task = self._task
        batch = task.collate([task.example(samples[i]) for i in chosen.tolist()])
        if not isinstance(batch, Batch):
            raise UserError(f"task: {type(task).__name__}.collate returns a {type(batch).__name__}, not a Batch")
        if len(batch.weight) != len(chosen) or batch.weight.dtype != torch.float32:
            raise UserError(
                f"task: {type(task).__name__}.collate returns weights {batch.weight.dtype} of shape "
                f"{list(batch.weight.shape)} for {len(chosen)} samples; they are float32, a row for each sample"
            )
        return batch


def _hash_files(key: str, paths: Sequence[Path]) -> str:
    """SHA-256 of a file, or of the hashes of several in their order."""
    hashes = []
    for path in paths:
        try:
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise UserError(f"{key}: {path} cannot be read: {error.strerror}") from None
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
