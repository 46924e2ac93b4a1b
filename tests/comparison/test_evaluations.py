"""Runs compared by what `losslab evaluate` recorded on another text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import Sweep, read, write_scores

from losslab.commands.compare import compare
from losslab.comparison import Comparison, analyse, load_runs
from losslab.comparison.runs.evaluations import on_text
from losslab.comparison.runs.weights import with_weights
from losslab.errors import UserError


def note(folder: Path, value: float, *, text: str = "/texts/other.txt", digest: str = "a" * 64, **changes: Any) -> None:
    entry = {
        "checkpoint": "checkpoints/best.ckpt",
        "step": 60,
        "text": text,
        "text_sha256": digest,
        "own_text": False,
        "part": "the whole",
        "documents": "auto",
        "metrics": {"text/nll_scaled": value, "text/top1": 0.25},
    }
    with (folder / "evaluations.jsonl").open("a") as file:
        file.write(json.dumps(entry | changes) + "\n")


@pytest.fixture
def evaluated(sweep: Sweep) -> Sweep:
    """Square is worse on its own test, and better on another text; its third seed was not evaluated there."""
    for seed in (1, 2, 3):
        for loss, own, other in (("cross_entropy", 3.0, 5.0), ("square", 3.5, 4.5)):
            folder = sweep.add(loss, seed, own + seed, val=own)
            write_scores(folder, np.ones((4, 6)))
            if (loss, seed) != ("square", 3):
                note(folder, 99.0, checkpoint="checkpoints/last.ckpt", step=100)
                note(folder, other + seed + seed / 100 * (loss == "square"))
    return sweep


def on(sweep: Sweep, text: str) -> Comparison:
    return analyse(on_text(load_runs(sweep.folder), text), metric="text/nll_scaled")


def test_entries_of_an_older_schema_are_read(evaluated: Sweep) -> None:
    now = on(evaluated, "other.txt")
    for path in evaluated.folder.glob("*/evaluations.jsonl"):
        path.write_text(path.read_text().replace('"metrics"', '"yardsticks"'))
    assert [row.mean for row in on(evaluated, "other.txt").rows] == [row.mean for row in now.rows]


@pytest.mark.parametrize("text", ["other.txt", "/texts/other.txt", "a" * 10])
def test_differences_are_those_on_the_other_text(text: str, evaluated: Sweep) -> None:
    c = on(evaluated, text)
    rows = {row.label: row for row in c.rows}
    assert rows["square"].differences == pytest.approx({1: -0.49, 2: -0.48})
    assert rows["cross_entropy"].n == 3 and rows["square"].n == 2
    summary = read(c)
    assert "another text, /texts/other.txt (the whole, documents=auto, SHA-256 aaaaaaaaaa)" in summary
    assert any("square-seed3" in text and "data.path=/texts/other.txt makes one" in text for text in c.caveats)
    assert not any(name.startswith("test/") for name in c.also), "of its own test nothing is shown"
    assert c.noises == {} and c.reliability == {}


def test_the_folder_and_the_metric_are_those_of_the_text(evaluated: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(evaluated.folder, metric="test/top1", evaluations="other.txt") == 0
    assert "the largest text/top1" in capsys.readouterr().out
    assert (evaluated.folder / "comparison-test-top1-evaluations=other.txt" / "report.html").exists()


def test_at_the_last_step_evaluations_of_the_last_checkpoint_count(evaluated: Sweep) -> None:
    c = analyse(on_text(with_weights(load_runs(evaluated.folder), "last"), "other.txt"), metric="text/nll_scaled")
    assert [row.mean for row in c.rows] == [99.0, 99.0]
    told = [text for text in c.caveats if "no evaluation" in text]
    assert len(told) == 1 and "--checkpoint last data.path=/texts/other.txt makes one" in told[0]
    assert "metrics of the last steps on another text" in read(c)


def test_a_run_without_an_evaluation_is_told_once(evaluated: Sweep) -> None:
    told = [text for text in on(evaluated, "other.txt").caveats if "no evaluation" in text or "missing or not" in text]
    assert len(told) == 1 and "square-seed3" in told[0]


def test_the_newest_evaluation_counts(evaluated: Sweep) -> None:
    for folder in evaluated.folder.glob("square-seed1-*"):
        note(folder, 5.0)
    rows = {row.label: row for row in on(evaluated, "other.txt").rows}
    assert rows["square"].differences[1] == pytest.approx(-1.0)


def test_evaluations_under_another_stride_are_another_way_of_scoring(evaluated: Sweep) -> None:
    for folder in evaluated.folder.glob("*-seed1-*"):
        note(folder, 7.0, eval_stride=8)
    c = on(evaluated, "other.txt")
    assert {row.label: row.differences for row in c.rows}["square"] == pytest.approx({1: -0.49, 2: -0.48})
    assert "aaaaaaaaaa), as losslab evaluate recorded them; 1 other way(s) of scoring it are left out" in read(c)


def test_a_text_of_no_evaluation_is_told_with_those_there_are(evaluated: Sweep) -> None:
    with pytest.raises(
        UserError, match=r"no run has an evaluation .* there are evaluations on other.txt; losslab eval"
    ):
        on(evaluated, "novel.txt")


def test_two_texts_of_one_name_are_told_apart_by_their_hash(evaluated: Sweep) -> None:
    for folder in evaluated.folder.glob("*-seed1-*"):
        note(folder, 5.0, digest="b" * 64)
    with pytest.raises(UserError, match=r"several texts are called so.*aaaaaaaaaa .*bbbbbbbbbb"):
        on(evaluated, "other.txt")
    assert {row.n for row in on(evaluated, "b" * 10).rows} == {1}


def test_damaged_lines_are_passed_over(evaluated: Sweep) -> None:
    for folder in evaluated.folder.glob("*-seed1-*"):
        path = folder / "evaluations.jsonl"
        path.write_text("{\n[]\n" + path.read_text() + '{"text": 3}\n')
    assert {row.label: row.n for row in on(evaluated, "other.txt").rows} == {"cross_entropy": 3, "square": 2}


def test_a_table_of_results_has_no_evaluations(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text("loss,seed,nll_scaled\ncross_entropy,1,3.0\nsquare,1,3.1\n")
    with pytest.raises(UserError, match="--evaluations are of runs, and a table of results has none"):
        on_text(load_runs(table), "other.txt")
