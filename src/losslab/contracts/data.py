"""The contract of a data module: batches that are a pure function of seed and step; splits scored without repeats."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from losslab.contracts.info import DataInfo, SplitContent
from losslab.contracts.task import Task
from losslab.contracts.values import Batch


class Share(NamedTuple):
    """The part of a batch, or of a split, that one process works on."""

    rank: int = 0
    ranks: int = 1
    micro: int = 0
    """The number of the micro-batch in its step, from 0."""
    micros: int = 1

    def rows(self, batch_size: int) -> slice:
        """The samples of an optimizer step's batch that belong to this rank's micro-batch: equally many for each."""
        size = batch_size // (self.ranks * self.micros)
        start = (self.micro * self.ranks + self.rank) * size
        return slice(start, start + size)


Subset = Literal["all", "fit"]
"""A split, or its half that fits a temperature."""


class DataModule(pl.LightningDataModule):
    """A data set. Its constructor's keys are those of its yaml; two of them every data set has.

    The framework makes loaders, workers and cursors out of `train_batch`, and hands `seed` over before the first batch.

    Args:
        batch_size: samples in one optimizer step, over all devices and micro-batches.
        val_batch_size: samples evaluated at once on each device.
    """

    splits: tuple[str, ...] = ("train", "val", "test")
    num_workers: int = 0
    """Processes that make batches; 0: the training process."""
    seed: int = 0
    """The data_order stream of the run."""
    memory: Path | None = None
    """A folder that all sweeps share, where hashes of files can be kept between runs; None: nowhere. Set by the
    framework before `content_hashes`; it need not exist."""
    info: DataInfo
    """The value of `prepare`; set by the framework."""
    repeats_after: int | None = None
    """Optimizer steps after which the batches of train begin again; None: never. Set by the framework."""

    def __init__(self, *, batch_size: int, val_batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self._cursor = {"first_step": 0, "accumulate": 1, "rank": 0, "ranks": 1}

    def content_hashes(self, task: Task) -> dict[str, str]:
        """Dotted key of each input (`data.path`) → SHA-256 of its content, for the run's identity.

        Called before anything is prepared, once for each run of a sweep. Default: no input.
        """
        return {}

    @abstractmethod
    def prepare(self, cache: Path, task: Task) -> DataInfo:
        """Read what there is to read; several processes may call this at once.

        Args:
            cache: a folder that all sweeps share, for what is worth keeping.
            task: how a row of the source becomes an example, where the data has rows.

        Raises:
            UserError: for data that is missing, damaged or too small.
        """

    @abstractmethod
    def train_batch(self, step: int, share: Share) -> Batch:
        """The samples `share.rows(self.batch_size)` of an optimizer step's batch: a pure function of (seed, step). A
        module whose steps have other numbers of samples says so by `places` and `samples_per_step`."""

    def places(self, step: int, share: Share) -> range:
        """Places, in the endless order of train, of the samples that `train_batch(step, share)` gives, one for each.
        Default: a step has `batch_size` samples, and each share as many. Where a step has fewer samples than shares, a
        share without one gives any sample with weight 0."""
        rows = share.rows(self.batch_size)
        return range(step * self.batch_size + rows.start, step * self.batch_size + rows.stop)

    @property
    def samples_per_step(self) -> float:
        """Samples of an optimizer step, on average over a pass. Default: `batch_size`."""
        return self.batch_size

    @abstractmethod
    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterable[Batch]:
        """The samples of a split, each once over all ranks, in batches of `val_batch_size`.

        Args:
            share: this process takes every `share.ranks`-th sample, beginning with number `share.rank`.
            subset: `fit`: positions whose `fit` is 1, for a task with a calibrator; a few others may be among them.
            most: about how many positions to give at most, always the same ones; None: all. A module whose splits are
                small may give all.
        """

    def references(self, split: str, most: int | None) -> dict[str, float]:
        """Metrics of what `eval_batches` gives that need no model, such as the unigram model's nll. Default: none."""
        return {}

    def texts(self, split: str, column: str) -> Sequence[Sequence[str]] | None:
        """References for texts that a network writes: those of val or test that are predicted (`Task.predicted`), as
        they were written, each at the number that `id` of an evaluation's batches gives its sample; after it, others
        that are as right. Default: None, and targets are decoded instead."""
        return None

    def check_task(self, task: Task) -> None:
        """Refuse a task that cannot be trained on this data, before any is read. Default: takes any.

        Raises:
            UserError: naming a task that can.
        """

    def told(self) -> str | None:
        """One line for people: what was read, and what was left out and why. Default: nothing."""
        return None

    def introduction(self, interim: int) -> Iterator[tuple[str, bool]]:
        """Lines that introduce the data when training begins, each with whether it is a note. Default: split sizes.

        Args:
            interim: the positions of val that validations before the last score; 0: all.
        """
        sizes = " · ".join(f"{size.positions:,} {split}" for split, size in self.info.splits.items())
        if files := self.told():
            yield f"read   {files}", False
        yield f"data   {sizes} positions", False

    def artifact_hashes(self) -> dict[str, str]:
        """Name → SHA-256 of each artifact, for the record: a continued run must find the same."""
        contents = self.info.artifacts.items()
        return {name.partition(".")[0]: hashlib.sha256(text.encode()).hexdigest() for name, text in contents}

    def summary(self) -> dict[str, Any]:
        """Plain values that the record keeps of the data. Default: the size of each split."""
        return {"positions": {split: size.positions for split, size in self.info.splits.items()}}

    def content(self, split: str) -> SplitContent | None:
        """A prepared split, for `losslab data inspect`. Default: nothing is known, and its batches are read."""
        return None

    def hash_batches(self, count: int = 50) -> str:
        """SHA-256 of the first `count` batches: the proof that two runs saw the same data."""
        digest = hashlib.sha256()
        for step in range(count):
            batch = self.train_batch(step, Share())
            for tensor in (*(batch.inputs[name] for name in sorted(batch.inputs)), batch.target, batch.weight):
                digest.update(raw_bytes(tensor))
        return digest.hexdigest()

    def batch_of(self, step: int, share: Share) -> Batch:
        """The part of an optimizer step's batch that the run trains on: `train_batch`, of whose order a limited run
        repeats the beginning."""
        return self.train_batch(step if self.repeats_after is None else step % self.repeats_after, share)

    def start_at(self, *, step: int, accumulate: int, rank: int, ranks: int) -> None:
        """Set the step at which `train_dataloader` begins, and this rank's share of each batch."""
        self._cursor = {"first_step": step, "accumulate": accumulate, "rank": rank, "ranks": ranks}

    def train_dataloader(self) -> DataLoader[Batch]:
        """This rank's micro-batches, without end."""
        return DataLoader(_MicroBatches(self, **self._cursor), batch_size=None, num_workers=self.num_workers)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return to_device(batch, device)


class _MicroBatches(IterableDataset[Batch]):
    """Micro-batches of one rank from optimizer step `first_step` on."""

    def __init__(self, data: DataModule, *, first_step: int, accumulate: int, rank: int, ranks: int) -> None:
        self.data = copy(data)
        self.data.trainer = None  # which no worker needs, and which cannot be pickled
        self.first = first_step * accumulate
        self.accumulate = accumulate
        self.rank = rank
        self.ranks = ranks

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        index, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        while True:
            step, micro = divmod(self.first + index, self.accumulate)
            yield self.data.batch_of(step, Share(self.rank, self.ranks, micro, self.accumulate))
            index += stride


def raw_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor on the CPU, row by row, whatever its strides."""
    known = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor  # numpy has no bfloat16
    return known.numpy().tobytes()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on another device. A GPU copies it while this process goes on, and need not be asked whether the
    weights hold a 0."""
    waits = device.type != "cuda"

    def move(tensor: Tensor) -> Tensor:
        if waits or tensor.is_cuda:
            return tensor.to(device)
        return tensor.pin_memory().to(device, non_blocking=True)

    def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: move(value) for name, value in tensors.items()}

    weight = move(batch.weight)
    is_known = batch.weight.device.type == "cpu" and bool(batch.weight.all())
    return batch._replace(
        inputs=moved(batch.inputs),
        target=move(batch.target),
        weight=weight,
        extras=moved(batch.extras),
        nonzero=weight if is_known else None,
    )
