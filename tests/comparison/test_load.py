"""Records read out of run folders, and sentences for those that cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, edit_record, read, rows_of, write_scores

from losslab.comparison import analyse, load_runs
from losslab.comparison.output.prose import caption
from losslab.errors import UserError
from losslab.records import SCHEMA
from losslab.run_folder import RunFolder


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 - 3])  # within a line


def test_a_run_has_its_loss_seed_settings_and_record(sweep: Sweep) -> None:
    folder = sweep.add("square", 4, 3.0, changes={"optimizer.lr": 0.01}, overrides=["loss.k=2", "seed=4"])
    (run,) = load_runs(sweep.folder).runs
    assert (run.folder, run.name, run.loss, run.seed, run.plain) == (RunFolder(folder), folder.name, "square", 4, False)
    assert run.settings["optimizer.lr"] == 0.01 and run.settings["data.content"] == "d" * 64
    assert "seed" not in run.settings and "data.path" not in run.settings
    assert run.value("test/nll_scaled") == 3.0 and run.value("test/nll") is None


def test_a_run_out_of_an_older_record_is_called_by_its_class(sweep: Sweep) -> None:
    edit_record(sweep.add("square", 1, 3.0), provenance={})
    assert [run.loss for run in load_runs(sweep.folder).runs] == ["Square"]


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
def test_a_record_of_an_older_schema_is_compared_with_one_of_today(schema: int, sweep: Sweep) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed, throughput={"tokens_per_second": 9.0, "flops_per_token": 7.0})
        path = sweep.add("square", seed, 3.5 + seed, throughput={"tokens_per_second": 9.0}) / "run.json"
        content = json.loads(path.read_text()) | {"schema": schema}
        content["yardsticks"] = content.pop("metrics")
        if schema == 1:
            content["provenance"] = {"choices": content["provenance"]["choices"]}
        path.write_text(json.dumps(content))
    assert schema < SCHEMA
    c = comparison_of(sweep)
    assert "| square" in read(c)
    assert rows_of(sweep)["square"].paired.mean == pytest.approx(0.5)


def test_curves_have_the_steps_with_a_value(sweep: Sweep) -> None:
    folder = sweep.add("square", 1, 3.0)
    (run,) = load_runs(sweep.folder).runs
    wanted = ["val/nll_scaled", "train/objective", "val/nothing"]
    found = run.curves(wanted)
    assert found.keys() == {"train/objective", "val/nll_scaled"}
    steps, values = found["val/nll_scaled"]
    assert (steps.tolist(), values.tolist()) == ([50.0, 100.0], [4.0, 3.5])
    assert found["train/objective"][0].tolist() == [49.0, 99.0]
    assert list(run.curves(["val/nll_scaled"])) == ["val/nll_scaled"]
    (folder / "metrics.csv").write_text("step,val/nll_scaled\n")
    assert run.curves(wanted) == {}
    (folder / "metrics.csv").unlink()
    assert run.curves(wanted) == {}


def test_scores_are_the_arrays_of_the_file(sweep: Sweep) -> None:
    folder = sweep.add("square", 1, 3.0)
    (run,) = load_runs(sweep.folder).runs
    assert run.scores() is None
    write_scores(folder, np.arange(12.0).reshape(4, 3))
    scores = run.scores()
    assert scores is not None
    assert str(scores["unit"]) == "document"
    assert scores["units"].tolist() == np.arange(12.0).reshape(4, 3).tolist()
    assert scores["reliability"].shape == (2, 3, 15)
    assert scores["unit_metrics"].tolist() == ["nll_scaled", "nll", "top1"]


def test_units_keep_the_metrics_that_the_file_names(sweep: Sweep) -> None:
    """`nll_scaled` of the second file stands in another place, `mse` in the first alone; neither has a reliability."""
    units = np.abs(np.random.default_rng(0).standard_normal((3, 20))) + 1
    names = {"cross_entropy": (["mse", "nll_scaled"], [0, 2, 1]), "square": (["nll_scaled"], [0, 1])}
    for loss, (own, rows) in names.items():
        for seed in (1, 2, 3):
            folder = sweep.add(loss, seed, 3.0 + seed)
            worse = units + np.array([[0], [0.5], [0]]) * units[0] * (loss == "square")
            np.savez(folder / "test_scores.npz", unit="sample", units=worse[rows], unit_metrics=np.array(own))
    c = comparison_of(sweep)
    assert c.noises.keys() == {"square"} and c.noises["square"].keys() == {"test/nll_scaled"}
    assert c.noises["square"]["test/nll_scaled"].mean == pytest.approx(0.5)
    assert (c.unit, c.reliability) == ("sample", {})


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda folder: (folder / "config.yaml").unlink(), "holds no config.yaml"),
    "half a config": (lambda folder: half(folder / "config.yaml"), "config.yaml"),
    "a broken config": (lambda folder: (folder / "config.yaml").write_text("a: [1"), "config.yaml cannot be read"),
    "an empty config": (lambda folder: (folder / "config.yaml").write_text(""), "config.yaml cannot be read"),
    "half a record": (lambda folder: half(folder / "run.json"), "run.json cannot be read"),
    "an empty record": (lambda folder: (folder / "run.json").write_text(""), "run.json cannot be read"),
    "a record of tomorrow": (lambda folder: edit_record(folder, schema=99), "has schema 99"),
}


@pytest.mark.parametrize(("break_it", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_damaged_run_is_left_out_with_a_sentence(break_it, reason: str, paired_sweep: Sweep) -> None:
    damaged = paired_sweep.add("square", 7, 99.0)
    paired_sweep.add("cross_entropy", 7, 99.0)
    break_it(damaged)
    c = comparison_of(paired_sweep)
    read(c)
    (told,) = [text for text in c.caveats if damaged.name in text]
    assert told.startswith("left out, because it cannot be read: ") and reason in told and "\n" not in told
    row = next(row for row in c.rows if row.label == "square")
    assert (row.n, row.mean) == (6, pytest.approx(3.25, abs=0.01)), "99 does not count"


@pytest.mark.parametrize(("break_it", "reason"), BROKEN.values(), ids=BROKEN)
def test_nothing_but_damaged_runs_is_refused_in_one_sentence(break_it, reason: str, sweep: Sweep) -> None:
    break_it(sweep.add("square", 1, 3.0))
    with pytest.raises(UserError) as caught:
        load_runs(sweep.folder)
    assert reason in str(caught.value) and str(sweep.folder) in str(caught.value)
    assert "\n" not in str(caught.value)


TORN: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "half a metrics.csv": ("metrics.csv", half, "its curves are left out"),
    "a torn last number": (
        "metrics.csv",
        lambda path: path.write_bytes(path.read_bytes().rstrip()[:-1]),
        "its last line is torn",
    ),
    "an empty metrics.csv": ("metrics.csv", lambda path: path.write_text(""), "its curves are left out"),
    "words in metrics.csv": ("metrics.csv", lambda path: path.write_text("step,val/nll_scaled\none,two\n"), "left out"),
    "half of the scores": ("test_scores.npz", half, "it is left out"),
    "empty scores": ("test_scores.npz", lambda path: path.write_bytes(b""), "it is left out"),
    "scores of another shape": (
        "test_scores.npz",
        lambda path: np.savez(path, unit="document", units=np.ones(3), reliability=np.ones(3)),
        "another shape",
    ),
    "scores with code": (
        "test_scores.npz",
        lambda path: np.savez(path, unit="document", units=np.array([{}]), reliability=np.ones((2, 3, 15))),
        "it is left out",
    ),
}


@pytest.mark.parametrize(("name", "break_it", "reason"), TORN.values(), ids=TORN)
def test_a_torn_file_beside_the_record_costs_only_what_it_held(name: str, break_it, reason: str, sweep: Sweep) -> None:
    units = np.ones((4, 6)) + np.arange(6) / 10
    folders = [sweep.add(loss, seed, 3.0 + seed) for loss in ("cross_entropy", "square") for seed in (1, 2, 3)]
    for folder in folders:
        write_scores(folder, units)
    break_it(folders[-1] / name)
    c = comparison_of(sweep)
    told = [text for text in c.caveats if str(folders[-1] / name) in text]
    assert len(told) == 1 and reason in told[0] and "is damaged" in told[0]
    assert told[0] in read(c)
    assert {row.label: row.n for row in c.rows} == {"cross_entropy": 3, "square": 3}
    assert c.curves["square"]["val/nll_scaled"].n == (2 if name == "metrics.csv" else 3)
    assert c.reliability["square"].sum(axis=0)[0, 0, 0] == (20.0 if name == "test_scores.npz" else 30.0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: None, "is neither a folder of runs nor a .csv table of results"),
        (lambda p: p.touch(), "is neither a folder of runs nor a .csv table of results"),
        (lambda p: p.mkdir(), "holds no runs"),
        (lambda p: (p / "a run without a record").mkdir(parents=True), "holds no runs"),
    ],
    ids=["missing", "a file", "empty", "no record"],
)
def test_a_folder_without_runs_is_told(make, reason: str, tmp_path: Path) -> None:
    make(tmp_path / "first")
    with pytest.raises(UserError, match=reason):
        load_runs(tmp_path / "first")


def test_the_folder_above_and_the_folder_below_are_told(sweep: Sweep) -> None:
    folder = sweep.add("square", 1, 3.0)
    with pytest.raises(UserError, match=r"holds no runs; those below it do: first"):
        load_runs(sweep.folder.parent)
    with pytest.raises(UserError, match=rf"is one run; compare the folder of runs above it: {sweep.folder}"):
        load_runs(folder)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("optimizer.lr=0.01", {(1, 0.01), (2, 0.01)}),
        ("optimizer.lr=1e-2", {(1, 0.01), (2, 0.01)}),
        ("optimizer.lr=.003", {(1, 0.003), (2, 0.003)}),
        ("seed=2", {(2, 0.01), (2, 0.003)}),
        ("loss=square", {(1, 0.01), (2, 0.01), (1, 0.003), (2, 0.003)}),
        ("trainer.precision=32-true", {(1, 0.01), (2, 0.01), (1, 0.003), (2, 0.003)}),
    ],
)
def test_where_keeps_the_runs_that_have_it(where: str, kept: set[tuple[int, float]], sweep: Sweep) -> None:
    for lr in (0.01, 0.003):
        for seed in (1, 2):
            sweep.add("square", seed, 3.0, changes={"optimizer.lr": lr})
    found = load_runs(sweep.folder, where=[where]).runs
    assert {(run.seed, run.settings["optimizer.lr"]) for run in found} == kept


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("optimizer.lr", "write KEY=VALUE"),
        ("optimiser.lr=1", "no run has a setting 'optimiser.lr': did you mean 'optimizer.lr'?"),
        ("optimizer.lr=0.1", "no run has optimizer.lr=0.1; there are: 0.003"),
        ("optimizer.lr=2024-13-45", "there are: 0.003"),
        ("optimizer.lr=[", "there are: 0.003"),
        ("seed=7", "no run has seed=7; there are: 1"),
        ("loss=focal", "no run has loss=focal; there are: square"),
    ],
)
def test_where_that_nothing_has_is_told(where: str, reason: str, sweep: Sweep) -> None:
    sweep.add("square", 1, 3.0)
    with pytest.raises(UserError) as caught:
        load_runs(sweep.folder, where=[where])
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_debug_runs_are_left_out_and_said_unless_there_are_no_others(sweep: Sweep) -> None:
    limited = {"trainer.limit_train_batches": 3}
    for loss in ("cross_entropy", "square"):
        for seed in (1, 2):
            sweep.add(loss, seed, 3.0)
            sweep.add(loss, seed, 1.0, changes=limited)
    sweep.add("square", 3, 1.0, changes={"trainer.fast_dev_run": 1})
    loaded = load_runs(sweep.folder)
    assert {run.value("test/nll_scaled") for run in loaded.runs} == {3.0}
    (told,) = loaded.problems
    assert told.startswith("5 debug runs are left out (trainer.fast_dev_run, trainer.limit_train_batches)")
    assert told in comparison_of(sweep).caveats
    assert "Debug runs" not in caption(comparison_of(sweep))
    alone = load_runs(sweep.folder, where=["trainer.limit_train_batches=3"])
    assert (len(alone.runs), alone.problems) == (4, [])
    noted = caption(analyse(alone))
    assert noted.startswith("Debug runs (trainer.limit_train_batches), whose numbers are no result: test/nll_scaled")
