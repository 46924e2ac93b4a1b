"""Each task with each loss that fits it trains, resumes bit for bit and evaluates on two ranks; others are refused."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from stopped_runs import make_run, plain_checkpoint
from task_loss_pairs import (
    STEPS,
    STOP,
    Pair,
    evaluate_together,
    further_rows,
    loss_columns,
    make_pairs,
    task_rows,
)

from losslab.errors import UserError
from losslab.run_folder import CACHE, RunFolder
from losslab.training import fitting as fitting_module
from losslab.training import run as training_run
from losslab.training import session_notes
from losslab.training.callbacks.run_callback import RunCallback
from losslab.training.factory import check_components
from losslab.training.scoring.evaluator import Evaluator


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


def train(pair: Pair, *, stopped: bool) -> tuple[Evaluator, dict[str, float]]:
    """Train a cell; returns its evaluator, which has the best weights, and their metrics.

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
        if self.state.step == STOP:  # all that a kill leaves
            shutil.copytree(self.run.path, killed(pair).path)

    every = {"every_n_steps": STOP if stopped else STEPS}
    make_run(pair.folder.path, pair.config | {"checkpoints": pair.config["checkpoints"] | every})
    with patch.object(training_run, "finish", finish_and_keep), patch.object(RunCallback, "_save", save_and_copy):
        record = training_run.execute(pair.folder)
    assert record.status == "completed", record.error
    return evaluators[0], record.metrics["best"]


def killed(pair: Pair) -> RunFolder:
    return RunFolder(pair.folder.path.with_name(f"{pair.folder.name}-killed"))


def ending(run: RunFolder) -> str:
    """All numbers of a run's end: NaN, too, is equal to itself here."""
    rows = run.metrics.read_text(encoding="utf-8")
    return repr([run.record().metrics, rows, plain_checkpoint(run.last)])


TASKS, FURTHER = task_rows(), further_rows()
Table = dict[str, dict[str, Pair]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("table")
    (place / CACHE).mkdir()
    return place


@pytest.fixture(scope="module")
def table(place: Path) -> Table:
    """Row → column → cell."""
    return {row: make_pairs(place, row) for row in (*TASKS, *FURTHER)}


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    """Group → what `_shipped` finds there."""
    return {group: fitting_module._shipped(group) for group in ("loss", "task")}


def continued(table: Table) -> set[tuple[str, str]]:
    """Cells of which a stopped run continues: of each row one loss of each kind of targets, and each loss somewhere,
    now with one task and now with another."""
    first = {(row, pair.loss.target_kind): (row, pair.column) for row in table for pair in fitting(table, row)[::-1]}
    tasks_of = {column: [row for row in TASKS if table[row][column].fits] for column in loss_columns()}
    turns = {(tasks[i % len(tasks)], column) for i, (column, tasks) in enumerate(tasks_of.items())}
    return {*first.values(), *turns}


def fitting(table: Table, row: str) -> list[Pair]:
    """Cells that are trained: of a further row, the first of each kind of targets."""
    found = [pair for pair in table[row].values() if pair.fits]
    return found if row in TASKS else [*{pair.loss.target_kind: pair for pair in found[::-1]}.values()]


@pytest.mark.parametrize("row", [*TASKS, *FURTHER])
def test_a_task_goes_with_each_loss_that_fits(row: str, table: Table, place: Path) -> None:
    """They train ten steps, two ranks evaluate as one does, and stopped runs continue bit for bit."""
    faults: dict[str, str] = {}
    trained: dict[str, tuple[Evaluator, dict[str, float]]] = {}
    stopping = continued(table)
    with cheaply():
        for pair in fitting(table, row):
            stopped = (row, pair.column) in stopping
            try:
                trained[pair.column] = train(pair, stopped=stopped)
                if stopped:
                    training_run.execute(killed(pair))
                    assert ending(killed(pair)) == ending(pair.folder)
            except Exception as error:  # the other cells are tried as well
                faults[pair.column] = repr(error)
    (meeting := place / f"ranks of {row}").mkdir()
    together = evaluate_together({column: evaluator for column, (evaluator, _) in trained.items()}, meeting)
    for column, (_, best) in trained.items():
        alone = {name: math.nan if value is None else value for name, value in best.items() if name != "step"}
        if together[column] != pytest.approx(alone, rel=1e-4, abs=1e-7, nan_ok=True):
            faults[column] = f"two ranks find {together[column]}, and one {alone}"
    assert trained and not faults, "\n".join(f"{column}: {fault}" for column, fault in faults.items())


@pytest.mark.parametrize("row", [*TASKS, *FURTHER])
def test_any_other_loss_is_refused_with_what_fits(
    row: str, table: Table, shipped: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence of bearable length, before data is read."""
    monkeypatch.setattr(fitting_module, "_shipped", shipped.__getitem__)
    for pair in table[row].values():
        if pair.fits:
            continue
        with pytest.raises(UserError) as refused:
            check_components(pair.config | {"data": pair.config["data"] | {"path": "not there"}})
        told = str(refused.value)
        assert "\n" not in told and len(told) < 420, told
        tasks, losses = (named(told, group) for group in ("task", "loss"))
        assert tasks and all(table[task][pair.column].fits for task in tasks), told
        assert losses and all(table[row][loss].fits for loss in losses), told


def named(sentence: str, group: str) -> list[str]:
    """The files of a group that a sentence says to go with something."""
    found = sentence.rpartition(f"goes with {group}=")[2].partition(", and ")[0].partition(" (")[0]
    return [name for name in re.split(", | or ", found) if not name.endswith(" others")]


def test_each_loss_and_each_task_is_in_the_table(table: Table) -> None:
    for column in loss_columns():
        assert any(table[row][column].fits for row in TASKS), column
    assert {column for _, column in continued(table)} == {*loss_columns()}
    assert {row for row, _ in continued(table)} == {*TASKS, *FURTHER}
    assert set(FURTHER) > {"classification pair=True", "regression target=values"}


def test_a_loss_that_does_not_fit_is_bad_input(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny("task=regression", "data=jsonl", "data.path=not_there.jsonl", "loss=focal") == 2
    told = capsys.readouterr().err.strip()
    assert "loss=Focal needs classes as targets, and task=Regression has values: this loss goes with task=" in told
    assert "this task goes with loss=gaussian_nll, " in told and told.count("\n") == 0
