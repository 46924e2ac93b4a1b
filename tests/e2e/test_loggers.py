"""W&B and MLflow as their own readers find them, and loggers of a person's own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from losslab.records import Record, read
from losslab.training import run as training_run
from runs import TINY, find_runs, losslab, stopping_after
from wandb_records import Part, parts, read_part

BOTH = ["loggers=[wandb,mlflow]", "loggers.wandb.mode=offline", "name=compared", "checkpoints.every_n_steps=2"]
RUN = [*BOTH, "trainer.log_every_n_steps=1"]
KILLER = """
import os
from lightning.pytorch.loggers import CSVLogger

class Killer(CSVLogger):
    def log_metrics(self, metrics, step=None):
        if step == 7:
            os.kill(os.getpid(), 9)
"""
LOGGED = ("train/objective", "train/lr", "grad_norm/all", "val/nll_scaled")


@pytest.fixture
def compared(run_tiny: Callable[..., int], workplace: Path) -> list[tuple[Path, Record]]:
    """Two losses and seeds; the first was killed at step 7, behind the checkpoint of step 6, and continued."""
    (workplace / "killer.py").write_text(KILLER)
    first = ["loss=cross_entropy", "seed=1"]
    process = losslab("train", *TINY, *RUN, *first, "+loggers.end._target_=killer.Killer", cwd=workplace)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -9, output
    for loss, seed in (("cross_entropy", 1), ("square", 2)):
        assert run_tiny(*RUN, f"loss={loss}", f"seed={seed}") == 0
    found = [(path, read(path)) for path in find_runs(Path("outputs/compared"))]
    assert len(found) == 2
    return found


def table(run: Path) -> dict[int, dict[str, float]]:
    """metrics.csv by step."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {int(row["step"]): {name: float(text) for name, text in row.items() if text} for row in rows}


def test_both_hold_all_runs_each_step_once(compared: list[tuple[Path, Record]]) -> None:
    check_wandb(compared)
    check_mlflow(compared)
    (killed,) = [run for run, _ in compared if len(parts(run)) == 2]
    before, after = map(read_part, parts(killed))
    # A kill loses what W&B had not written, the description of the run included.
    assert before.id in ("", after.id) and before.exit_code is None
    assert all(part.name.endswith(f"-{after.id}") for part in parts(killed))


def test_a_run_that_is_stopped_or_fails_has_its_status_there(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is stopped, fails, and is completed, each time as the same run."""
    assert statuses(run_tiny, 4) == ("KILLED", 1, "interrupted", True)
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "build_network", MagicMock(side_effect=RuntimeError("no such thing")))
        assert statuses(run_tiny, None) == ("FAILED", 1, "failed", False)
    assert statuses(run_tiny, None) == ("FINISHED", 0, "completed", False)
    (run,) = find_runs(Path("outputs/compared"))
    *_, failed, completed = map(read_part, parts(run))
    assert [row["_step"] for row in failed.rows] == [1, 2, 3, 4], "the newest folder alone is the whole run"
    assert [row["_step"] for row in completed.rows] == list(range(1, 9))
    assert len({read_part(part).id for part in parts(run)}) == 1


def statuses(run_tiny: Callable[..., int], stop: int | None) -> tuple[str, int | None, str, bool]:
    """MLflow's status, and W&B's exit code, status and whether the run is said to go on, after a session."""
    from mlflow.tracking import MlflowClient

    with nullcontext() if stop is None else stopping_after(stop):
        run_tiny(*RUN)
    (run,) = find_runs(Path("outputs/compared"))
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('outputs/mlflow.db').absolute()}")
    status = client.get_run(read(run).provenance["loggers"]["mlflow"]["run_id"]).info.status
    part = read_part(parts(run)[-1])
    return status, part.exit_code, part.summary["status"], part.preempting


def check_wandb(compared: list[tuple[Path, Record]]) -> None:
    newest: list[tuple[Part, Path, Record]] = [(read_part(parts(run)[-1]), run, record) for run, record in compared]
    assert len({part.id for part, _, _ in newest}) == 2
    for part, run, record in newest:
        assert (part.id, part.name, part.group) == (record.provenance["loggers"]["wandb"]["id"], run.name, "compared")
        loss, seed = record.provenance["choices"]["loss"], part.config["seed"]
        assert {f"loss={loss}", f"seed={seed:.0f}", "trainer.max_steps=8"} <= set(part.tags)
        assert (part.config["loss"], part.config["width"], part.config["lr"]) == (loss, 16, 3e-3)
        expected = table(run)
        assert [row["_step"] for row in part.rows] == sorted(expected) == list(range(1, 9))
        for row in part.rows[:-1]:
            assert {name: row.get(name) for name in LOGGED} == {n: expected[row["_step"]].get(n) for n in LOGGED}
        check_final(part.summary, record)
        assert part.summary["train/objective"] == expected[8]["train/objective"]
        assert (part.exit_code, part.summary["status"], part.preempting) == (0, "completed", False)


def check_mlflow(compared: list[tuple[Path, Record]]) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path('outputs/mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("compared")
    assert experiment is not None
    found = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert len(found) == 2
    for path, record in compared:
        run = found[record.provenance["loggers"]["mlflow"]["run_id"]]
        assert (run.info.run_name, run.info.status) == (path.name, "FINISHED")
        assert run.data.tags["loss"] == run.data.params["loss"] == record.provenance["choices"]["loss"]
        assert (run.data.params["width"], run.data.params["lr"]) == ("16.0", "0.003")
        check_final(run.data.metrics, record)
        expected = table(path)
        for name in LOGGED:
            history = client.get_metric_history(run.info.run_id, name)
            values = {step: row[name] for step, row in expected.items() if name in row}
            assert [point.step for point in history] == sorted(values), "each step once"
            assert {point.step: point.value for point in history if point.step < 8} == {
                step: value for step, value in values.items() if step < 8
            }


def check_final(values: dict[str, Any], record: Record) -> None:
    """The last values are the record's."""
    final, best = record.metrics["final"], record.metrics["best"]
    for name in ("val/nll_scaled", "val/top5", "test/nll", "test/nll_scaled"):
        assert values[name] == final[name]
    assert values["best/val/nll_scaled"] == best["val/nll_scaled"]
    assert values["best/test/nll_scaled"] == best["test/nll_scaled"]
