"""`losslab compare` as a whole: what it prints, and what it writes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import Sweep, edit_record, write_scores

from losslab.commands.compare import compare
from losslab.errors import UserError

PRIMARY: dict[str, Any] = {"baseline": "cross_entropy", "metric": "test/nll_scaled"}
WRITTEN = {"report.html", "summary.md", "summary.csv", "summary.tex", "figures"}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def rich(grid: Sweep) -> Sweep:
    """A sweep with something of everything: tuned, scored, with curves, a diverged and a failed run, and odd names."""
    units = np.abs(np.random.default_rng(0).standard_normal((4, 20))) + 1
    for folder in sorted(grid.folder.iterdir()):
        write_scores(folder, units)
    for seed in (1, 2):
        grid.add("focal", seed, 3.3 + seed / 100, val=3.2, changes={"loss.name": "a|b <i> $x$, 5% & _c_"})
        grid.add("focal", seed, 3.4 + seed / 100, val=3.3, changes={"loss.name": "plain"})
    grid.add("hinge", 1, status="diverged", error="step 3: the objective is not finite")
    grid.add("hinge", 2, status="failed", error="killed")
    (grid.add("hinge", 3) / "run.json").write_text("{")
    return grid


PROGRAM = """
import sys
from pathlib import Path
from losslab.commands.compare import compare
code = compare(Path("first"), baseline="cross_entropy", metric="test/nll_scaled")
assert not {"torch", "lightning", "hydra"} & set(sys.modules)
sys.exit(code)
"""


def test_another_process_prints_and_writes_the_same_bytes_and_needs_no_torch(rich: Sweep, tmp_path: Path) -> None:
    """With other seeds for its hashes, in another place."""
    shutil.copytree(rich.folder, tmp_path / "elsewhere" / "first")
    places = [tmp_path, tmp_path / "elsewhere"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=place,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for place, hash_seed in zip(places, ("1", "77"), strict=True)
    ]
    printed, printed_again = (process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    first, second = (files_below(place / "first" / "comparison") for place in places)
    assert printed == printed_again
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert all(first.values())
    assert {Path(name).parts[0] for name in first} >= WRITTEN
    pictures = {Path(name).stem for name in first if name.startswith("figures/")}
    assert {"curves", "differences-test-nll_scaled", "sensitivity-optimizer.lr", "reliability"} <= pictures
    for name in pictures:
        assert {f"figures/{name}.{kind}" for kind in ("svg", "png", "pdf", "csv")} <= first.keys()
    assert first["figures/curves.png"].startswith(b"\x89PNG") and first["figures/curves.pdf"].startswith(b"%PDF")
    summary = first["summary.md"].decode()
    said = [line for line in summary.splitlines() if line.startswith(("| ", "- "))]
    assert len(said) > 10
    for line in said:
        plain = re.sub(r"\\(.)", r"\1", line).removeprefix("- ")  # Markdown alone escapes sentences
        assert line in printed or plain in printed
    for text in (printed, summary, first["report.html"].decode()):
        assert "hinge: 1 diverged at lr=0.003, seed 1 (step 3: the objective is not finite)" in text
        assert "left out, because it cannot be read: " in text


def test_another_metric_has_a_folder_of_its_own(paired_sweep: Sweep) -> None:
    for folder in list(paired_sweep.folder.iterdir()):
        seed = int(folder.name.partition("seed")[2][0])
        edit_record(folder, metrics={"best": {"test/nll_scaled": 3.0, "test/top1": 0.1 * seed}})
    assert compare(paired_sweep.folder, baseline="cross_entropy", metric="test/top1") == 0
    assert not (paired_sweep.folder / "comparison").exists()
    target = paired_sweep.folder / "comparison-test-top1"
    assert "test/top1" in (target / "summary.md").read_text()
    assert {path.name for path in target.iterdir()} >= WRITTEN


def test_a_table_has_its_files_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.csv"
    path.write_text("loss,seed,nll\ncross_entropy,1,3\ncross_entropy,2,3.5\nsquare,1,2\nsquare,2,2.4\n")
    assert compare(path, **PRIMARY) == 0
    assert {path.name for path in (tmp_path / "results-comparison").iterdir()} == WRITTEN
    assert "| square " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"baseline": "cross_entrpy"}, "there is no baseline 'cross_entrpy' among these runs"),
        ({"metric": "test/nothing"}, "no run has the metric 'test/nothing'"),
        ({"where": ["optimizer.lr=7"]}, "no run has optimizer.lr=7; there are: 0.003"),
        ({"tune": "optimizer.rl"}, "--tune optimizer.rl: settings are chosen on validation"),
        ({"margin": 0.0}, "--margin must be above 0, and finite, not 0"),
        ({"margin": float("nan")}, "--margin must be above 0, and finite, not nan"),
        ({"margin": float("inf")}, "--margin must be above 0, and finite, not inf"),
    ],
)
def test_an_unknown_word_is_one_sentence_and_writes_nothing(
    asked: dict[str, Any], answer: str, paired_sweep: Sweep
) -> None:
    before = sorted(paired_sweep.folder.iterdir())
    with pytest.raises(UserError) as caught:
        compare(paired_sweep.folder, **PRIMARY | asked)
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(paired_sweep.folder.iterdir()) == before


def test_a_margin_says_what_counts_as_none(sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("losslab.commands.answer._write", lambda c, target: None)
    for seed in range(1, 7):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.02 + seed + seed % 2 / 1000)
    compare(sweep.folder, **PRIMARY)
    assert "| worse " in capsys.readouterr().out
    compare(sweep.folder, **PRIMARY, margin=0.1)
    assert "| worse, but equivalent (within ±0.1) |" in capsys.readouterr().out


def test_all_pairs_are_printed_and_written_and_leave_with_the_option(
    paired_sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    target = paired_sweep.folder / "comparison"
    compare(paired_sweep.folder, **PRIMARY, all_pairs=True)
    printed = capsys.readouterr().out
    assert "| cross_entropy | square | -0.0501 [-0.0516, -0.0486] " in printed and "all_pairs.csv" in printed
    assert (
        (target / "all_pairs.csv")
        .read_text()
        .splitlines()[1]
        .startswith("test/nll_scaled,best,cross_entropy,square,6,-0.05")
    )
    assert "<h2>All pairs</h2>" in (target / "report.html").read_text()
    compare(paired_sweep.folder, **PRIMARY)
    assert not (target / "all_pairs.csv").exists() and "all_pairs.csv" not in capsys.readouterr().out
    assert "All pairs" not in (target / "report.html").read_text()


def test_a_folder_that_cannot_be_written_is_told(paired_sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("losslab.commands.answer.write_atomic", fail)
    with pytest.raises(UserError, match=r"the comparison cannot be written to .*comparison: Read-only file system"):
        compare(paired_sweep.folder, **PRIMARY)
