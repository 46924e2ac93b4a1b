"""`losslab.comparison.load`: runs as columns, for notebooks."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import Sweep

from losslab.comparison import load
from losslab.errors import UserError

FIXED = ["folder", "loss", "seed", "status", "step", "max_steps", "seconds", "tokens_per_second", "error"]


def test_columns_are_of_equal_length_one_entry_a_run(sweep: Sweep) -> None:
    first = sweep.add("cross_entropy", 1, 3.0, val=2.9, throughput={"tokens_per_second": 7.0})
    sweep.add("square", 2, 3.5, changes={"optimizer.lr": 0.01}, metrics={"test/nll": None})
    sweep.add("square", 3, status="failed", error="killed", changes={"loss.k": 2.0})
    columns = load(sweep.folder)
    assert list(columns) == [
        *FIXED,
        "loss._target_",
        "loss.k",
        "optimizer.lr",
        "test/nll",
        "test/nll_scaled",
        "val/nll_scaled",
        "final/test/nll_scaled",
    ]
    assert {len(column) for column in columns.values()} == {3}
    assert columns["folder"][0] == str(first)
    assert columns["loss"] == ["cross_entropy", "square", "square"]
    assert columns["seed"] == [1, 2, 3]
    assert columns["status"] == ["completed", "completed", "failed"]
    assert columns["optimizer.lr"] == [0.003, 0.01, 0.003]
    assert columns["loss.k"] == [None, None, 2.0]
    assert columns["test/nll_scaled"] == [3.0, 3.5, None]
    assert columns["final/test/nll_scaled"] == [99.0, 99.0, None]
    assert columns["tokens_per_second"] == [7.0, None, None]
    assert columns["error"] == [None, None, "killed"]
    assert load(str(sweep.folder)) == columns


def test_a_table_has_columns_too(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("loss,seed,optimizer.lr,nll\nsquare,1,0.1,3\nsquare,2,0.2,\n")
    columns = load(path)
    assert columns["optimizer.lr"] == [0.1, 0.2] and columns["nll"] == [3.0, None] and columns["folder"] == [None, None]
    assert {len(column) for column in columns.values()} == {2}


def test_a_damaged_run_is_left_out_and_no_runs_are_refused(sweep: Sweep, tmp_path: Path) -> None:
    sweep.add("square", 1, 3.0)
    (sweep.add("square", 2, 3.0) / "run.json").write_text("{")
    assert load(sweep.folder)["seed"] == [1]
    with pytest.raises(UserError, match="is neither a folder"):
        load(tmp_path / "nowhere")


def test_a_notebook_waits_for_no_torch(sweep: Sweep) -> None:
    sweep.add("square", 1, 3.0)
    program = (
        "import sys\nfrom losslab.comparison import load, analyse, load_runs\n"
        f"load({str(sweep.folder)!r}); analyse(load_runs(__import__('pathlib').Path({str(sweep.folder)!r})), "
        "baseline='square')\n"
        "print(sorted({'torch', 'lightning', 'hydra', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
