"""Runs of ten steps that take a tenth of a second, stopped and continued, by this process or by two ranks."""

from __future__ import annotations

import faulthandler
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from stopped_runs import make_run, plain_checkpoint
from torch import distributed

from losslab.contracts import Share
from losslab.run_folder import RunFolder
from losslab.training import run as training_run
from losslab.training import session_notes
from losslab.training.callbacks.run_callback import RunCallback
from losslab.training.scoring.evaluator import Evaluator

STEPS, STOP = 10, 8
SECONDS = 240

COMMON = [
    "data.batch_size=4",
    "data.val_batch_size=16",
    "scheduler.warmup_steps=2",
    f"trainer.max_steps={STEPS}",
    f"trainer.val_check_interval={STEPS}",
    f"checkpoints.every_n_steps={STEPS}",
    "trainer.interim_eval_tokens=0",
    "trainer.log_every_n_steps=4",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "loggers=none",
]


@contextmanager
def cheaply() -> Iterator[None]:
    """Within, hundreds of runs leave out what each of them repeats: the hashes of all sources and of batches beyond
    its steps, and the wait for the disk."""
    versions, code = session_notes.versions(), session_notes.hash_code([])
    with ExitStack() as stack:
        for owner, name, value in [
            (session_notes, "versions", lambda: versions),
            (session_notes, "hash_code", lambda foreign: code),
            (session_notes, "_HASHED_BATCHES", 10),
            (os, "fsync", lambda descriptor: None),
        ]:
            stack.enter_context(patch.object(owner, name, value))
        yield


def train(run: RunFolder, config: dict[str, Any], *, stopped: bool) -> tuple[Evaluator, dict[str, float]]:
    """Train a run; returns its evaluator, which has the best weights, and their metrics.

    Args:
        stopped: keep the run's folder as it is after step STOP, too.
    """
    evaluators: list[Evaluator] = []
    finish, save = training_run.finish, RunCallback._save

    def finish_and_keep(run: RunFolder, module: Any, evaluator: Evaluator, *rest: Any, **options: Any) -> None:
        finish(run, module, evaluator, *rest, **options)
        evaluators.append(evaluator)

    def save_and_copy(self: RunCallback, trainer: Any, improved: bool) -> None:
        save(self, trainer, improved)
        if self.state.step == STOP and self.record is not None:  # the rank that writes
            shutil.copytree(run.path, killed(run).path)

    every = {"every_n_steps": STOP if stopped else STEPS}
    if int(os.environ.get("RANK", 0)) == 0:
        make_run(run.path, config | {"checkpoints": config["checkpoints"] | every})
    if distributed.is_initialized():
        distributed.barrier()
    with patch.object(training_run, "finish", finish_and_keep), patch.object(RunCallback, "_save", save_and_copy):
        record = training_run.execute(run)
    assert record.status == "completed", record.error
    return evaluators[0], record.metrics["best"]


def killed(run: RunFolder) -> RunFolder:
    """The folder of a run as a kill after step STOP leaves it."""
    return RunFolder(run.path.with_name(f"{run.name}-killed"))


def ending(run: RunFolder) -> str:
    """All numbers of a run's end: NaN, too, is equal to itself here."""
    rows = run.metrics.read_text(encoding="utf-8")
    return repr([run.record().metrics, rows, plain_checkpoint(run.last)])


def numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Metrics of a record, which holds null for NaN and infinity, to compare with `approx`."""
    finite = {name: math.nan if value is None else value for name, value in metrics.items() if name != "step"}
    return {name: value if math.isfinite(value) else math.nan for name, value in finite.items()}


def evaluate_together(evaluators: dict[str, Evaluator], folder: Path) -> dict[str, dict[str, float]]:
    """Name → metrics on val and test of networks in memory, each evaluated by two processes."""
    on_two_ranks(_evaluate, evaluators, folder)
    return torch.load(folder / "metrics.pt", weights_only=True)  # type: ignore[no-any-return]


def _evaluate(rank: int, evaluators: dict[str, Evaluator], folder: Path) -> None:
    found = {}
    for name, evaluator in evaluators.items():
        evaluator.share = Share(rank, 2)
        validated = evaluator.validate(thorough=True)
        found[name] = validated | evaluator.test_after(validated)
    if rank == 0:
        torch.save(found, folder / "metrics.pt")


def train_together(runs: dict[RunFolder, dict[str, Any]], folder: Path) -> None:
    """Train runs of two devices and continue those that were killed, by the same two processes."""
    on_two_ranks(_train_and_continue, runs, folder)


def _train_and_continue(rank: int, runs: dict[RunFolder, dict[str, Any]], folder: Path) -> None:
    with cheaply():
        for run, config in runs.items():
            train(run, config, stopped=True)
            record = training_run.execute(killed(run))
            assert record.status == "completed", record.error


def on_two_ranks(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(rank, *arguments)`, whose last is a folder of theirs, in two forks of this process."""
    forks = torch.multiprocessing.start_processes(
        _be_rank, args=(work, *arguments), nprocs=2, join=False, start_method="fork"
    )
    while not forks.join():  # an error of a rank is raised here
        pass


def _be_rank(rank: int, work: Callable[..., None], *arguments: Any) -> None:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "tests"}
    meeting = f"file://{arguments[-1]}/meeting"
    limit = timedelta(seconds=SECONDS)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit)
    work(rank, *arguments)
    distributed.destroy_process_group()
