"""Runs that were killed, stopped or started twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslab import records
from losslab.commands.resume import resume
from losslab.errors import UserError
from losslab.locks import is_locked
from runs import TINY, find_runs, losslab, make_text, only_run, stopping_after
from warm_process import PYTHON

LONG = [
    *TINY,
    "loss=square",
    "model.dropout=0.1",
    "trainer.max_steps=160",
    "trainer.val_check_interval=30",
    "trainer.accumulate_grad_batches=2",
    "checkpoints.every_n_steps=7",
    "loggers=tensorboard",
]

PRESSED = """
from losslab import cli

def app(standalone_mode):
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        return 130

cli.app = app
cli.main()
"""


def wait_for_step(process: Popen[str], folder: Path, step: int) -> Path:
    """Until the run in `folder` has saved this step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        runs = find_runs(folder)
        if runs and records.read(runs[0]).step >= step:
            return runs[0]
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    raise AssertionError(f"no step {step} within two minutes")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """The metrics of LONG, run in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "book.txt").write_text(make_text(), encoding="utf-8")
    process = losslab("train", *LONG, cwd=folder)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return only_run(folder / "outputs/runs")[1].metrics


@pytest.mark.parametrize("how", ["same command", "resume"])
def test_a_killed_run_continues_bit_for_bit(
    workplace: Path, undisturbed: dict[str, dict[str, float]], how: str
) -> None:
    process = losslab("train", *LONG, cwd=workplace)
    run = wait_for_step(process, workplace / "outputs/runs", step=random.randint(1, 120))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert records.read(run).status == "running"
    assert not is_locked(run)
    arguments = ["train", *LONG] if how == "same command" else ["resume", str(run)]
    second = losslab(*arguments, cwd=workplace)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    assert "continues after step" in output
    _, record = only_run(workplace / "outputs/runs")
    assert record.status == "completed"
    assert record.metrics == undisturbed
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps["val/nll_scaled"] == [*range(30, 160, 30), 160]
    assert steps["train/objective"] == [1, *range(2, 161, 2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_marks_interrupted(
    workplace: Path, undisturbed: dict[str, dict[str, float]], number: signal.Signals
) -> None:
    process = losslab("train", *LONG, cwd=workplace)
    run = wait_for_step(process, workplace / "outputs/runs", step=20)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert records.read(run).status == "interrupted"
    second = losslab("resume", str(run), cwd=workplace)
    second.communicate(timeout=300)
    assert records.read(run).metrics == undisturbed


def test_a_running_run_is_not_started_twice(workplace: Path) -> None:
    process = losslab("train", *LONG, cwd=workplace)
    run = wait_for_step(process, workplace / "outputs/runs", step=1)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        for arguments in (["train", *LONG], ["resume", str(run)]):
            second = losslab(*arguments, cwd=workplace)
            output, _ = second.communicate(timeout=60)
            assert second.returncode == 2, output
            assert "already running" in output
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_resume_refuses_a_text_that_has_changed_since(run_tiny: Callable[..., int]) -> None:
    run_tiny("trainer.max_steps=2")
    run, record = only_run(Path("outputs/runs"))
    record.status = "interrupted"
    record.write(run)
    Path("book.txt").write_text(make_text(seed=1))
    with pytest.raises(UserError, match="another text"):
        resume(run, [], [])


def test_a_signal_after_training_is_not_swallowed(run_tiny: Callable[..., int]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run_tiny("trainer.max_steps=2")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_ctrl_c_outside_a_run_is_no_success(run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("losslab.training.process.start.start", press)
    assert run_tiny() == 130


def test_ctrl_c_while_a_package_defines_its_classes_ends_with_130(tmp_path: Path) -> None:
    """Dataclasses and named tuples are made by `exec`, after which Python would end itself by SIGINT."""
    (tmp_path / "pressed.py").write_text(PRESSED)
    ended = subprocess.run([PYTHON, "-m", "pressed"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 130, ended.stderr


def test_a_resumed_run_reads_its_checkpoint_once(run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As large as the training state, it may take minutes: no rank reads it more than once."""
    with stopping_after():
        assert run_tiny() == 1
    load, read = torch.load, []

    def noted_load(file: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(Path(file).name)
        return load(file, *args, **kwargs)

    monkeypatch.setattr(torch, "load", noted_load)
    assert run_tiny() == 0
    assert only_run(Path("outputs/runs"))[1].step == 8
    assert read.count("last.ckpt") == 1
    assert all(name.endswith(".tmp") for name in read if name != "last.ckpt")  # read back before it takes the name


def test_an_unfinished_run_keeps_its_split_unless_told_otherwise(run_tiny: Callable[..., int]) -> None:
    with stopping_after():
        assert run_tiny("trainer.accumulate_grad_batches=2") == 1
    _, record = only_run(Path("outputs/runs"))
    assert (record.status, record.step) == ("interrupted", 4)
    assert run_tiny() == 0
    _, record = only_run(Path("outputs/runs"))
    assert (record.status, record.hardware["accumulate_grad_batches"]) == ("completed", 2)
