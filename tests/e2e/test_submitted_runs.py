"""`losslab train -m hydra/launcher=slurm`: submitit's own executors, and a queue that behaves as SLURM's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

import fake_slurm
from losslab.commands.train import train
from losslab.records import Record, read
from runs import TINY, find_runs, losslab, make_text, only_run, stopping_after

LONG = [
    *TINY,
    "model.dropout=0.1",
    "trainer.max_steps=200",
    "trainer.val_check_interval=100",
    "checkpoints.every_n_steps=10",
]
SLURM = "hydra/launcher=slurm"
LOCAL = [SLURM, "hydra.launcher.executor=local"]
SWEEP = Path("outputs/runs")
SECONDS = 120


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """The metrics of LONG, run in one go."""
    return train_in(tmp_path_factory.mktemp("undisturbed"), LONG).metrics


def train_in(folder: Path, arguments: list[str]) -> Record:
    (folder / "book.txt").write_text(make_text(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert train(arguments) == 0
    return only_run(folder / SWEEP)[1]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workplace: Path) -> Path:
    """The folder of a queue that behaves as SLURM's."""
    folder = tmp_path / "cluster"
    fake_slurm.install(folder)
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def until(condition: Callable[[], object], process: Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def step_of(seed: int) -> int:
    """Where the run of this seed is."""
    return max((read(run).step for run in find_runs(SWEEP) if f"-seed{seed}-" in run.name), default=0)


def end_of(process: Popen[str]) -> str:
    return process.communicate(timeout=SECONDS)[0]


def test_a_timeout_requeues_a_run_which_continues_in_its_folder(
    workplace: Path, undisturbed: dict[str, dict[str, float]]
) -> None:
    process = losslab("train", "-m", *LOCAL, *LONG, "hydra.launcher.max_parallel=2", "seed=1,2", cwd=workplace)
    until(lambda: step_of(1) >= 20, process)
    (job,) = {path.name.partition("_")[0] for path in (SWEEP / ".submitit").glob("*_log.out") if "seed1-" in told(path)}
    (task,) = subprocess.check_output(["pgrep", "-P", job], text=True).split()
    os.kill(int(task), signal.SIGUSR2)
    output = end_of(process)
    assert process.returncode == 0, output
    assert "[1/2] completed" in output and "[2/2] completed" in output and output.endswith("runs: 2 completed\n")
    assert "Requeued job" in told(SWEEP / ".submitit" / f"{job}_0_log.out")
    first, second = find_runs(SWEEP)
    assert "continues after step" in (first / "train.log").read_text()
    assert "continues after step" not in (second / "train.log").read_text()
    assert read(first).metrics == undisturbed


def told(log: Path) -> str:
    return log.read_text(encoding="utf-8")


OWN_LOSSES = """
from losslab.losses.base import Loss

class Own(Loss):
    def position_loss(self, logits, target):
        return -logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]

class Broken(Loss):
    def position_loss(self, logits, target):
        raise RuntimeError("no such thing")
"""


def test_the_debug_executor_trains_own_losses_one_after_the_other(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_losses.py").write_text(OWN_LOSSES)
    Path("conf/loss").mkdir(parents=True)
    for name in ("Own", "Broken"):
        Path(f"conf/loss/{name.lower()}.yaml").write_text(f"_target_: own_losses.{name}\n")
    own = ["--config-dir", "conf", "loss=broken,own", "trainer.max_steps=2"]
    assert run_tiny("-m", SLURM, "hydra.launcher.executor=debug", *own) == 1
    said = capsys.readouterr()
    assert "failed: loss=broken: RuntimeError: no such thing; see outputs" in said.err
    assert "[2/2] completed    loss=own" in said.out and "\nruns: 1 completed, 1 failed\n" in said.out


def test_a_preempted_run_continues_and_a_queued_one_is_not_submitted_again(
    cluster: Path, workplace: Path, undisturbed: dict[str, dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "-m", SLURM, *LONG, "hydra.launcher.cpus_per_task=1"]
    process = losslab(*command, cwd=workplace)
    until(lambda: step_of(1) >= 20, process)
    fake_slurm.send(cluster, "100", signal.SIGTERM)
    output = end_of(process)
    assert process.returncode == 1, output
    assert "[1/1] interrupted" in output and "saved at step" in output
    _, record = only_run(SWEEP)
    saved = record.step
    assert record.status == "interrupted"
    assert f"after step {saved}" in str(record.error)  # in the worker's own words: it was not killed

    (cluster / fake_slurm.HOLD).touch()
    process = losslab(*command, cwd=workplace)
    until(lambda: "101" in fake_slurm.jobs(cluster), process)
    assert train([*command[1:], "hydra.launcher.wait=false"]) == 0
    output = capsys.readouterr().out
    assert "[1/1] pending already " in output and output.endswith(" as job 101\nruns: 1 submitted\n")
    (cluster / fake_slurm.HOLD).unlink()
    until(lambda: step_of(1) >= saved + 20, process)
    fake_slurm.send(cluster, "101", signal.SIGUSR2)
    output = end_of(process)
    assert process.returncode == 0, output
    assert "[1/1] completed" in output
    assert set(fake_slurm.jobs(cluster)) == {"100", "101"}
    run, record = only_run(SWEEP)
    assert (run / "train.log").read_text().count("continues after step") == 2
    assert record.metrics == undisturbed


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of TINY, in one process."""
    return train_in(tmp_path_factory.mktemp("alone"), TINY)


def check_two_ranks(run: Record, alone: Record) -> None:
    assert run.hardware["ranks"] == 2
    assert run.hashes == alone.hashes
    assert run.metrics["final"] == pytest.approx(alone.metrics["final"], rel=1e-5)


def test_more_nodes_train_as_one_process(cluster: Path, run_tiny: Callable[..., int], alone: Record) -> None:
    assert run_tiny("-m", SLURM, "trainer.num_nodes=2", "trainer.strategy=ddp") == 0
    check_two_ranks(only_run(SWEEP)[1], alone)


def test_tasks_of_srun_are_ranks(workplace: Path, alone: Record) -> None:
    two = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    check_two_ranks(run_tasks("train", *TINY, *two), alone)


def test_tasks_of_srun_resume_a_run(run_tiny: Callable[..., int], alone: Record) -> None:
    with stopping_after():
        assert run_tiny() == 1
    check_two_ranks(run_tasks("resume", str(only_run(SWEEP)[0]), "trainer.strategy=ddp", "trainer.devices=2"), alone)


def run_tasks(*arguments: str) -> Record:
    """The command, as srun starts two tasks of it on one node; the record of the run."""
    tasks = [
        Popen(
            [sys.executable, "-m", "losslab", *arguments],
            env=os.environ | fake_slurm.task(i, nodes=1, per_node=2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [end_of(task) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    return only_run(SWEEP)[1]
