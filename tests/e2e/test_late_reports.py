"""Runs whose numbers are read one step late, as on a GPU: they end as those that wait at every step."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from short_runs import COMMON, cheaply, ending, killed, train, train_together
from stopped_runs import make_run
from task_loss_pairs import short_documents
from torch import Tensor

from losslab.config.binding import bind_components
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.contracts import Batch
from losslab.run_folder import CACHE, RunFolder
from losslab.training import module as training_module
from losslab.training.module import LossModule
from losslab.training.run import execute

WORDS = [
    *["data=text", "data.tokenizer=bytes", "model.num_layers=1", "model.width=8", "model.num_heads=2"],
    *["model.context=16", "model.dropout=0.1", "loss=poly1", "trainer.gradient_clip_val=0.5"],
]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    (tmp_path / CACHE).mkdir()
    (tmp_path / "book.txt").write_text(short_documents(), encoding="utf-8")
    words = [*COMMON, *WORDS, f"data.path={tmp_path / 'book.txt'}", f"output_dir={tmp_path}"]
    return resolve_split(resolve_budget(bind_components(check_run(compose_plain(words)))))


def late() -> Any:
    return patch.object(training_module, "reads_late", lambda device: True)


def test_a_run_ends_as_one_that_waits_stopped_or_not(config: dict[str, object], tmp_path: Path) -> None:
    runs = RunFolder(tmp_path / "runs" / "waits"), RunFolder(tmp_path / "runs" / "late")
    with cheaply():
        train(runs[0], config, stopped=True)
        with late():
            train(runs[1], config, stopped=True)
            execute(killed(runs[1]))
    assert ending(runs[1]) == ending(runs[0]) == ending(killed(runs[1]))


def test_a_signal_stops_after_its_step_and_the_run_continues(config: dict[str, object], tmp_path: Path) -> None:
    waits, run = RunFolder(tmp_path / "runs" / "waits"), RunFolder(tmp_path / "runs" / "late")
    training_step = LossModule.training_step

    def signalled(module: LossModule, batch: Batch, batch_idx: int) -> Tensor:
        if module.trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(module, batch, batch_idx)

    with cheaply():
        train(waits, config, stopped=False)
        with late():
            make_run(run.path, config)
            with patch.object(LossModule, "training_step", signalled):
                record = execute(run)
            assert (record.status, record.step) == ("interrupted", 2), record
            assert record.error == "stopped by a signal after step 2"
            execute(run)
    assert ending(run) == ending(waits)


def test_two_ranks_end_as_those_that_wait(config: dict[str, Any], tmp_path: Path) -> None:
    config = config | {"trainer": config["trainer"] | {"devices": 2, "strategy": "ddp", "micro_batch_size": 2}}
    runs = RunFolder(tmp_path / "runs" / "waits"), RunFolder(tmp_path / "runs" / "late")
    for run, way in zip(runs, (nullcontext(), late()), strict=True):
        (meeting := tmp_path / f"meeting of {run.name}").mkdir()
        with way:
            train_together({run: config}, meeting)
    assert ending(runs[1]) == ending(runs[0]) == ending(killed(runs[1]))


def test_what_is_not_finite_ends_the_run_and_is_named_by_its_step(config: dict[str, object], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "late")
    training_step = LossModule.training_step

    def broken(module: LossModule, batch: Batch, batch_idx: int) -> Tensor:
        loss = training_step(module, batch, batch_idx)
        return loss * torch.nan if module.trainer.global_step == 1 else loss

    make_run(run.path, config)
    with cheaply(), late(), patch.object(LossModule, "training_step", broken):
        record = execute(run)
    assert record.status == "diverged" and "norm nan at step 2" in str(record.error)
    assert not run.last.exists()
