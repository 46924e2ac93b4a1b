"""The part of a run's log that belongs to a longer run that continues it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from losslab.metric import Metric
from losslab.training.callbacks.state import Intervals
from losslab.training.origins.branch import History, read_history

NLL_SCALED = Metric("nll_scaled", "nll after one temperature", "nats per token", higher_is_better=False)
COLUMNS = ["step", "train/objective", "val/nll", "val/nll_scaled"]


def logged(folder: Path, *, ended: int, every: int, values: dict[int, float], log: int = 2) -> Path:
    """metrics.csv of a run that was validated every so often: the values are those of val/nll_scaled."""
    path = folder / "metrics.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for step in range(1, ended + 1):
            row: dict[str, object] = {"step": step}
            if step % log == 0 or step in (1, ended):
                row["train/objective"] = float(step)
            if step % every == 0 or step == ended:
                row |= {"val/nll": values[step] + 1, "val/nll_scaled": values[step]}
            if len(row) > 1:
                writer.writerow(row)
    return path


def history(
    path: Path,
    step: int,
    ended: int,
    *,
    validate: int,
    log: int = 2,
    tokens: int = 4096,
    primary: Metric = NLL_SCALED,
) -> History:
    intervals = Intervals(total=100, log=log, validate=validate, checkpoint=50)
    about = {"step": step, "max_steps": ended, "val_check_interval": 3, "interim_eval_tokens": 4096}
    trainer = {"val_check_interval": validate, "interim_eval_tokens": tokens}
    return read_history(path, about, trainer, intervals, primary)


def rows(found: History) -> dict[int, tuple[str, str]]:
    return {
        int(row["step"]): (row["train/objective"], row["val/nll_scaled"])
        for row in csv.DictReader(io.StringIO(found.table))
    }


VALUES = {3: 5.0, 6: 3.0, 9: 4.0, 12: 2.0}


def test_the_last_validation_is_made_again_because_it_was_thorough(tmp_path: Path) -> None:
    found = history(logged(tmp_path, ended=12, every=3, values=VALUES), 12, 12, validate=3)
    assert found.best == {"val/nll": 4.0, "val/nll_scaled": 3.0, "step": 6}
    assert found.latest == {"val/nll": 5.0, "val/nll_scaled": 4.0}
    assert found.due == {"train/objective": 12.0}
    assert found.notes == []
    assert rows(found) == {
        1: ("1.0", ""), 2: ("2.0", ""), 3: ("", "5.0"), 4: ("4.0", ""), 6: ("6.0", "3.0"), 8: ("8.0", ""),
        9: ("", "4.0"), 10: ("10.0", ""),
    }  # fmt: skip


def test_where_higher_is_better_the_largest_is_the_best(tmp_path: Path) -> None:
    primary = NLL_SCALED._replace(higher_is_better=True)
    path = logged(tmp_path, ended=12, every=3, values=VALUES)
    assert history(path, 12, 12, validate=3, primary=primary).best["step"] == 3


def test_only_the_validations_of_the_longer_run_count(tmp_path: Path) -> None:
    """Its own come every 9 steps: the best one so far is at 9, though the other run had a better one at 6."""
    found = history(logged(tmp_path, ended=12, every=3, values=VALUES), 12, 12, validate=9)
    assert (found.best["step"], found.due, found.notes) == (9, None, [])
    assert [step for step, (_, value) in rows(found).items() if value] == [9]
    assert rows(found)[12] == ("12.0", "")


def test_a_row_that_only_the_shorter_run_logs_is_left_out(tmp_path: Path) -> None:
    values = {5: 5.0, 7: 4.0}
    found = history(logged(tmp_path, ended=7, every=5, values=values), 7, 7, validate=5)
    assert 7 not in rows(found)
    assert history(logged(tmp_path, ended=7, every=5, values=values, log=7), 7, 7, validate=5, log=7).due is None


def test_before_the_end_of_the_other_run_nothing_is_made_again(tmp_path: Path) -> None:
    found = history(logged(tmp_path, ended=12, every=3, values=VALUES), 9, 12, validate=3)
    assert (found.due, found.best["step"], max(rows(found))) == (None, 6, 9)


@pytest.mark.parametrize("step", [8, 12])
def test_validations_that_were_never_made_are_told(tmp_path: Path, step: int) -> None:
    found = history(logged(tmp_path, ended=12, every=3, values=VALUES), step, 12, validate=4)
    assert found.best == {} and found.due is not None
    assert f"counts from step {step} on; trainer.val_check_interval=3, as in that run" in found.notes[0]
    assert "(4" in found.notes[0]


def test_validations_on_other_tokens_do_not_count(tmp_path: Path) -> None:
    found = history(logged(tmp_path, ended=12, every=3, values=VALUES), 9, 12, validate=3, tokens=8192)
    assert found.best == {} and not any(value for _, value in rows(found).values())
    assert found.due == {}
    assert "trainer.interim_eval_tokens=4096, as in that run" in found.notes[0]


def test_a_run_without_a_log_has_no_history(tmp_path: Path) -> None:
    found = history(tmp_path / "metrics.csv", 12, 12, validate=3)
    assert found.best == {} and rows_or_none(found) == {} and "(3, 6, 9)" in found.notes[0]


def rows_or_none(found: History) -> dict[int, str]:
    return {int(row["step"]): "" for row in csv.DictReader(io.StringIO(found.table))}
