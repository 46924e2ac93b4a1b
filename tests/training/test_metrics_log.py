"""metrics.csv: after a resume each step once, and no torn row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from losslab.metric import Metric
from losslab.run_folder import RunFolder
from losslab.training.output.logs import MetricsLog, Shown

COLUMNS = ["train/objective", "val/nll"]
PRIMARY = Metric("nll", "nll", "nats per token", higher_is_better=False)


def open_log(folder: Path, *, step: int = 0, columns: list[str] = COLUMNS) -> MetricsLog:
    absent: Any = MagicMock()
    return MetricsLog(
        RunFolder(folder), step=step, columns=columns, shown=Shown(PRIMARY, ["rmse"], 1000), loggers=absent
    )


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def steps(folder: Path) -> list[int]:
    return [int(row["step"]) for row in rows(folder)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Steps 1 to 12 are logged, of which 4, 8 and 12 are validated."""
    log = open_log(tmp_path)
    for step in range(1, 13):
        values = {"train/objective": 1 / step} | ({"val/nll": 3.0} if step % 4 == 0 else {})
        log.write(step, values, {})
    log.close()
    return tmp_path


def test_rows_hold_numbers_exactly_and_blanks_for_what_is_not_there(folder: Path) -> None:
    content = rows(folder)
    assert list(content[0]) == ["step", *COLUMNS]
    assert [float(row["train/objective"]) for row in content] == [1 / step for step in range(1, 13)]
    assert [row["val/nll"] for row in content] == 3 * ["", "", "", "3.0"]


@pytest.mark.parametrize("step", [0, 1, 9, 10, 12, 100])
def test_rows_after_the_checkpoint_are_cut_off(folder: Path, step: int) -> None:
    before = rows(folder)
    open_log(folder, step=step).close()
    assert rows(folder) == before[:step]


def test_a_resumed_run_has_each_step_once(folder: Path) -> None:
    log = open_log(folder, step=9)
    for step in range(10, 15):
        log.write(step, {"train/objective": 0.5}, {})
    log.close()
    assert steps(folder) == list(range(1, 15))
    assert rows(folder)[9]["train/objective"] == "0.5"


@pytest.mark.parametrize("keep", range(1, len("13,0.25,7.125\r\n")))
def test_a_row_torn_at_any_byte_is_gone(folder: Path, keep: int) -> None:
    """A kill tears the row of a step that no checkpoint counts as done."""
    whole = rows(folder)
    with (folder / "metrics.csv").open("ab") as file:
        file.write(b"13,0.25,7.125\r\n"[:keep])
    log = open_log(folder, step=12)
    log.write(13, {"train/objective": 2.0}, {})
    log.close()
    assert rows(folder)[:12] == whole
    assert rows(folder)[12:] == [{"step": "13", "train/objective": "2.0", "val/nll": ""}]


@pytest.mark.parametrize("torn", [b"", b"st", b"step,train/obj", b"step,train/objective,val/nll"])
def test_a_torn_header_is_written_again(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(torn)
    open_log(tmp_path).close()
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,train/objective,val/nll\r\n"


def test_columns_of_this_version_replace_those_of_the_last(folder: Path) -> None:
    open_log(folder, step=2, columns=["val/top1", "train/objective"]).close()
    assert rows(folder) == [
        {"step": "1", "val/top1": "", "train/objective": "1.0"},
        {"step": "2", "val/top1": "", "train/objective": "0.5"},
    ]


def test_flushed_rows_are_in_the_file_while_it_is_open(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.write(1, {"train/objective": 2.0}, {})
    log.flush()
    assert steps(tmp_path) == [1]
    log.close()


def test_cutting_leaves_the_old_file_when_it_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "metrics.csv").read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            open_log(folder, step=3)
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_value_without_a_column_is_an_error(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    with pytest.raises(ValueError, match="val/tpo1"):
        log.write(1, {"val/tpo1": 0.5}, {})
    log.close()
