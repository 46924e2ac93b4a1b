"""A person's own table, from the command line to the record."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

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
