"""The kit of data modules: batches that are a function of seed and step, shared out without a gap, scored once."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from losslab.conformance.samples import prepared
from losslab.contracts import Batch, DataInfo, DataModule, Share, Subset, Task
from losslab.errors import Fault, error_sentence
from losslab.training.factory import build_data, build_task
from losslab.training.random import global_stream
from losslab.training.trial import data as trials
from losslab.training.trial.data import sample_keys, train_batch

_BATCH, _VAL_BATCH = 12, 5
"""Sizes of the modules on trial: a number of samples that 1, 2, 3 ranks and 1, 2 micro-batches share, and one that no
split is likely to be a multiple of."""
_STEPS = 4
_MOST_TRAIN_BATCHES = 200
_RANKS = (1, 2, 3)
_ALL = Share()


@dataclass(frozen=True)
class DataTrial:
    """A data module on trial."""

    config: dict[str, Any]
    task: Task
    cache: Path
    data: DataModule
    """Prepared, with batches of 12 samples, and of 5 where it is scored."""

    def fresh(self, *, seed: int | None = None, val_batch_size: int = _VAL_BATCH) -> DataModule:
        """Another instance, prepared in the same cache."""
        config = {**self.config, "seed": self.config["seed"] if seed is None else seed}
        data = prepared(build_data(config), config, self.task, self.cache)
        data.val_batch_size = val_batch_size
        return data

    @property
    def info(self) -> DataInfo:
        return self.data.info


def subject(config: dict[str, Any], stack: ExitStack) -> DataTrial:
    """The data on trial, prepared in a folder of its own.

    Raises:
        UserError: for what can be seen before a batch is made: signature, members, a task that it does not go with,
            and a `prepare` that returns no whole DataInfo.
    """
    task = build_task(config)
    build_data(config).check_task(task)
    own = {"batch_size": _BATCH, "val_batch_size": _VAL_BATCH}
    own = {key: value for key, value in own.items() if key in config["data"]}
    config = {**config, "data": {**config["data"], **own}}
    cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return DataTrial(config, task, cache, prepared(build_data(config), config, task, cache))


def form(trial: DataTrial) -> str:
    """Batches of train and of each split are what the contract says."""
    batch = train_batch(trial.data, 0, Share())
    said = trials.form(batch, "train_batch(0, …)")
    if len(batch.weight) != (wanted := len(trial.data.places(0, Share()))):
        asked = "batch_size" if wanted == trial.data.batch_size else "places"
        raise Fault(f"train_batch(0, Share()) gives {len(batch.weight)} samples of {wanted} ({asked})")
    for split in trial.data.splits[1:]:
        for number, scored in enumerate(islice(batches_of(trial.data, split), 2)):
            trials.form(scored, f"eval_batches({split!r}, …)")
            if len(scored.weight) > trial.data.val_batch_size:
                raise Fault(
                    f"eval_batches({split!r}, …) gives {len(scored.weight)} samples in batch {number}, and "
                    f"val_batch_size is {trial.data.val_batch_size}"
                )
    return said


def batches_of(
    data: DataModule, split: str, share: Share = _ALL, subset: Subset = "all", most: int | None = None
) -> Iterable[Batch]:
    """The batches of a split."""
    try:
        yield from data.eval_batches(split, share, subset, most)
    except Exception as error:  # a person's data may raise anything
        raise Fault(f"eval_batches({split!r}, {share}, {subset!r}, {most}) raises {error_sentence(error)}") from error


def function_of_seed(trial: DataTrial) -> str:
    """The same instance again, out of order, and a fresh instance give the same batches."""
    trials.repeats(trial.data)
    other = trial.fresh()
    for step in reversed(range(_STEPS)):
        if not trials.equal(train_batch(other, step, Share(), "other"), train_batch(trial.data, step, Share())):
            raise Fault(
                f"train_batch({step}, …) of a fresh instance, asked for the last step first, gives another batch: a "
                "resumed run would go on with other samples; it is a function of (self.seed, step)"
            )
    return f"{_STEPS} batches, again, backwards, and of a fresh instance"


def seeds_differ(trial: DataTrial) -> str:
    """Another seed is another order."""
    other = trial.fresh(seed=trial.config["seed"] + 1)
    if all(
        trials.equal(train_batch(other, step, Share()), train_batch(trial.data, step, Share()))
        for step in range(_STEPS)
    ):
        raise Fault("two seeds give the same batches: the order does not read self.seed, which the framework sets")
    return "another seed, another order"


def shares_make_up_the_batch(trial: DataTrial) -> str:
    """The parts of 1, 2, 3 ranks and 1, 2 micro-batches are the whole batch, equally large."""
    whole = Counter(sample_keys(train_batch(trial.data, 1, Share())))
    for ranks in _RANKS:
        for micros in (1, 2):
            shares = [Share(rank, ranks, micro, micros) for micro in range(micros) for rank in range(ranks)]
            parts = [train_batch(trial.data, 1, share) for share in shares]
            sizes = [len(part.weight) for part in parts]
            wanted = [len(trial.data.places(1, share)) for share in shares]
            if sizes != wanted:
                told = f"{wanted[0]} each" if len(set(wanted)) == 1 else ", ".join(map(str, wanted))
                raise Fault(
                    f"with {ranks} ranks and {micros} micro-batches, shares of a batch of {sum(wanted)} have "
                    f"{', '.join(map(str, sizes))} samples, not {told}: take share.rows(self.batch_size)"
                )
            found = Counter(key for part in parts for key in sample_keys(part))
            if found != whole:
                raise Fault(
                    f"the shares of {ranks} ranks and {micros} micro-batches do not make up the batch: "
                    f"{_told(whole, found)}; take share.rows(self.batch_size)"
                )
    return "1, 2, 3 ranks, 1 and 2 micro-batches"


def _told(wanted: Counter[str], found: Counter[str]) -> str:
    missing, more = sum((wanted - found).values()), sum((found - wanted).values())
    return f"{missing} of {sum(wanted.values())} samples are missing, and {more} are there that should not be"


def scored_once(trial: DataTrial) -> str:
    """Each sample of a split once, on 1, 2, 3 ranks, at any val_batch_size, the second time as the first."""
    said = []
    other = trial.fresh(val_batch_size=2)
    for split in trial.data.splits[1:]:
        alone = list(batches_of(trial.data, split))
        whole = Counter(key for batch in alone for key in sample_keys(batch))
        positions = sum(int((batch.weight != 0).sum()) for batch in alone)
        if positions != trial.info.splits[split].positions and not trial.task.masks:
            raise Fault(
                f"eval_batches({split!r}, …) gives {positions:,} positions, and prepare said "
                f"{trial.info.splits[split].positions:,} (DataInfo.splits): is a last, smaller batch left out?"
            )
        by_id = all("id" in batch.extras for batch in alone)
        if by_id and (twice := [key for key, count in whole.items() if count > 1]):
            raise Fault(f"eval_batches({split!r}, …) gives the sample with id {twice[0]} {whole[twice[0]]} times")
        again = {
            "a second pass": [batches_of(trial.data, split)],
            "val_batch_size=2": [batches_of(other, split)],
            **{
                f"{ranks} ranks": [batches_of(trial.data, split, Share(rank, ranks)) for rank in range(ranks)]
                for ranks in _RANKS[1:]
            },
        }
        for how, parts in again.items():
            found = Counter(key for part in parts for batch in part for key in sample_keys(batch))
            if found != whole:
                raise Fault(f"eval_batches({split!r}, …) gives other samples with {how}: {_told(whole, found)}")
        said.append(f"{sum(whole.values()):,} of {split}")
    return ", ".join(said)


def parts_of_a_split(trial: DataTrial) -> str:
    """`most` chooses the same samples always; the half that fits a calibrator is there."""
    for split in trial.data.splits[1:]:
        first, again = (
            [key for batch in batches_of(trial.data, split, Share(), "all", 10) for key in sample_keys(batch)]
            for _ in range(2)
        )
        if not first or first != again:
            raise Fault(
                f"eval_batches({split!r}, …, most=10) gives {'other samples each time' if first else 'nothing'}"
            )
    if trial.task.calibrator(trial.info) is None:
        return "the same always"
    batches = list(batches_of(trial.data, "val", Share(), "fit", 10))
    if not any(bool(((batch.extras.get("fit", batch.weight) != 0) & (batch.weight != 0)).any()) for batch in batches):
        raise Fault(
            "eval_batches('val', …, 'fit') gives no position to fit the task's calibrator on: those whose extra `fit` "
            "is 1, about half of val"
        )
    return "the same always, and one to fit the calibrator on"


def content_is_hashed(trial: DataTrial) -> str:
    """Hashes are stable, and change nothing."""
    first = trial.data.content_hashes(trial.task)
    with global_stream(1, "hashes"):
        again = build_data(trial.config).content_hashes(trial.task)
    if first != again:
        raise Fault("content_hashes gives other hashes the second time: it hashes what is drawn, or a time")
    if wrong := [key for key, value in first.items() if not key.startswith("data.") or not isinstance(value, str)]:
        raise Fault(f"content_hashes gives {wrong[0]!r}; it maps a dotted key (data.path) to the hash of its content")
    if not trials.equal(train_batch(trial.fresh(), 0, Share()), train_batch(trial.data, 0, Share())):
        raise Fault("content_hashes changes the batches that come after it")
    if not first:
        return "no input is hashed: where files change, two runs have one identity all the same"
    return ", ".join(first)


def train_is_apart(trial: DataTrial) -> str:
    """Samples of train that val has, too, are counted; some data has copies, and that is not the module's fault."""
    count = int(trial.info.splits["train"].positions / trial.info.mean_positions) if "train" in trial.info.splits else 0
    steps = min(_MOST_TRAIN_BATCHES, -(-count // trial.data.batch_size) or _STEPS)
    seen = {key for step in range(steps) for key in sample_keys(train_batch(trial.data, step, Share()), by_id=False)}
    said = []
    for split in trial.data.splits[1:]:
        scored = [key for batch in batches_of(trial.data, split) for key in sample_keys(batch, by_id=False)]
        said.append(f"{sum(key in seen for key in scored):,} of {len(scored):,} samples of {split}")
    return f"{' and '.join(said)} are in the first {steps} batches of train"


CHECKS: dict[str, Callable[[DataTrial], str]] = {
    "batches": form,
    "seed and step": function_of_seed,
    "seeds": seeds_differ,
    "shares": shares_make_up_the_batch,
    "scored once": scored_once,
    "parts of splits": parts_of_a_split,
    "content hashes": content_is_hashed,
    "train apart": train_is_apart,
}
