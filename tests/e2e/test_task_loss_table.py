"""Each task with each loss that fits it trains, resumes bit for bit and evaluates on two ranks; others are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from short_runs import cheaply, ending, evaluate_together, killed, numbers, train
from task_loss_pairs import Pair, further_rows, loss_columns, make_pairs, task_rows

from losslab.errors import UserError
from losslab.run_folder import CACHE
from losslab.training import fitting as fitting_module
from losslab.training.factory import check_components
from losslab.training.run import execute
from losslab.training.scoring.evaluator import Evaluator

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
                trained[pair.column] = train(pair.folder, pair.config, stopped=stopped)
                if stopped:
                    execute(killed(pair.folder))
                    assert ending(killed(pair.folder)) == ending(pair.folder)
            except Exception as error:  # the other cells are tried as well
                faults[pair.column] = repr(error)
    (meeting := place / f"ranks of {row}").mkdir()
    together = evaluate_together({column: evaluator for column, (evaluator, _) in trained.items()}, meeting)
    for column, (_, best) in trained.items():
        if numbers(together[column]) != pytest.approx(numbers(best), rel=1e-4, abs=1e-7, nan_ok=True):
            faults[column] = f"two ranks find {together[column]}, and one {best}"
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
    assert "loss=focal needs classes as targets, and task=regression has values: this loss goes with task=" in told
    assert "this task goes with loss=gaussian_nll, " in told and told.count("\n") == 0
