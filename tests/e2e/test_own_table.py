"""A person's own table, from the command line to the record."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import losslab
from losslab.commands.predict import predict
from losslab.errors import UserError

COLORS = ("red", "green", "blue")


def test_a_table_is_trained_on(run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f'"{COLORS[i % 3]}, number {i}";{COLORS[i % 3]}' for i in range(300)]
    Path("rows.csv").write_text("\n".join(["sentence;color", *rows]) + "\n")
    words = ["data=csv", "task=classification", "data.path=rows.csv", "data.columns.text=sentence"]
    words += ["data.tokenizer=bytes"]
    assert run_tiny(*words) == 2
    assert "data.columns.label=label: rows.csv has no such column, but 'sentence', 'color'" in capsys.readouterr().err
    assert run_tiny(*words, "data.columns.label=color") == 0
    assert "150 train · 75 val · 75 test rows" in capsys.readouterr().out
    (path,) = Path("outputs").glob("*/*/run.json")
    record = json.loads(path.read_text())
    assert record["status"] == "completed"
    assert {"tokenizer", "labels", "data"} <= record["hashes"].keys()
    check_predictions(path.parent, capsys)


def check_predictions(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.csv").write_text("id;sentence\n1;number 3, red\n2;blue\n")
    assert predict(run, Path("new.csv"), output=None, checkpoint="best", trust=[]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in printed] == ["1", "2"] and {row["predicted"] for row in printed} <= set(COLORS)
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in printed)
    assert predict(run, Path("new.csv"), output=Path("out.csv"), checkpoint="best", trust=[]) == 0
    assert "2 rows with predictions: out.csv" in capsys.readouterr().out
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "sentence", "predicted", "probability"]
    for row, told in zip(rows, printed, strict=True):
        assert row["predicted"] == told["predicted"]
        assert float(row["probability"]) == max(told["probabilities"].values())
    (told,) = losslab.load(run).predict(["blue"])
    assert told["predicted"] == printed[1]["predicted"]
    assert told["probabilities"] == pytest.approx(printed[1]["probabilities"], rel=1e-5)
    with pytest.raises(UserError, match="'predicted' already"):
        predict(run, Path("out.csv"), output=None, checkpoint="best", trust=[])
    with pytest.raises(UserError, match=r"must end in \.jsonl or \.csv"):
        predict(run, Path("new.csv"), output=Path("out.parquet"), checkpoint="best", trust=[])
