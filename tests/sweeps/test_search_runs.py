"""A search without training: which runs it hands out, and what it makes of their ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_studies import LR, NLL, open_studies

from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.sweeps.followed_run import Run
from losslab.sweeps.search import Search
from losslab.sweeps.study import Drawn, Study

STEPS = 40


class Command:
    """One start of the command, whose runs end when the test says so.

    Args:
        words: of the command.
        started: names of runs, of all commands.
    """

    def __init__(self, folder: Path, *words: str, started: list[str], **changes: Any) -> None:
        self.folder = folder
        self.started = started
        self.studies = open_studies(folder, *words, **changes)
        self.search = Search(self.studies, NLL, self._open)
        self.running: list[Run] = []

    def _open(self, study: Study, drawn: Drawn, seed: str, number: int) -> Run | str:
        if drawn.number in getattr(self, "wrong", ()):
            return f"trial {drawn.number} is wrong"
        name = f"{study.name}-{drawn.number}-{seed}"
        folder = RunFolder(self.folder / name)
        if not folder.exists():
            folder.path.mkdir()
            folder.write(Record(identity=name, name="t", status="planned", max_steps=STEPS))
        record = folder.record()
        return Run(number, name, folder, 1, STEPS, [], record.status, step=record.step)

    def fill(self, slots: int) -> None:
        while len(self.running) < slots and (runs := self.search.next()):
            for run in runs:
                record = run.folder.record()
                if record.status in ("completed", "pruned"):
                    self.search.ended(run, record)
                    continue
                self.started.append(run.label)
                self.running.append(run)

    def end(self, run: Run, status: str = "completed", value: float = 1.0, step: int = STEPS) -> None:
        record = run.folder.record()
        record.status, record.step, record.error = status, step, None if status == "completed" else status
        record.metrics = {"best": {"val/nll": value}}
        run.folder.write(record)
        self.running.remove(run)
        self.search.ended(run, record)

    def work(self, slots: int, until: Callable[[], bool] = lambda: False) -> None:
        while not until():
            self.fill(slots)
            if not self.running:
                return
            self.end(self.running[0])


def test_a_search_that_is_killed_twice_trains_each_trial_once(tmp_path: Path) -> None:
    started: list[str] = []
    words = ["loss=cross_entropy,focal", LR]
    for kill_at in (5, 9, None):
        command = Command(tmp_path, *words, started=started, n_trials=6)
        command.work(2, lambda at=kill_at: at is not None and len(started) >= at)  # type: ignore[misc]
    assert command.search.is_spent and command.search.expected == 12
    again = {name for name, count in Counter(started).items() if count > 1}
    assert len(set(started)) == 12 and len(again) <= 4, "only those that ran when a kill came are continued"
    assert [study.statuses() for study in command.studies] == [["completed"] * 6] * 2
    assert Command(tmp_path, *words, started=started, n_trials=6).search.next() == []


def test_studies_are_drawn_in_turn(tmp_path: Path) -> None:
    command = Command(tmp_path, "loss=cross_entropy,focal,square", LR, started=[], n_trials=3)
    command.fill(5)
    assert [len(study.trials()) for study in command.studies] == [2, 2, 1]


def test_a_trial_of_several_seeds_is_their_mean(tmp_path: Path) -> None:
    command = Command(tmp_path, LR, "seed=1,2", started=[], n_trials=3)
    command.fill(2)
    first, second = command.running
    assert [run.label.rpartition("-")[2] for run in (first, second)] == ["seed=1", "seed=2"]
    command.end(second, value=3.0)
    assert command.studies[0].statuses() == ["running"]
    command.end(first, value=1.0)
    assert command.studies[0].trials()[0].value == 2.0
    command.fill(2)
    first, second = command.running
    command.end(first, "failed")
    command.end(second)
    assert command.studies[0].statuses() == ["completed", "failed"]


def test_the_first_seed_decides_whether_the_others_start(tmp_path: Path) -> None:
    command = Command(tmp_path, LR, "seed=1,2", started=[], n_trials=5, pruner="median")
    for _ in range(2):
        command.fill(1)
        (scout,) = command.running
        assert command.search.validated(scout, 10, 1.0) == ""
        command.end(scout)
        command.fill(1)
        (other,) = command.running
        assert other.label.endswith("seed=2")
        assert command.search.validated(other, 10, 99.0) == "", "only first seeds are compared"
        command.end(other)
    command.fill(2)
    scout, next_scout = command.running
    reason = command.search.validated(scout, 10, 5.0)
    assert reason == "val/nll 5.0000 at step 10 is worse than the median of the other trials there"
    command.end(scout, "pruned", 5.0, step=10)
    command.fill(2)
    assert all(run.label.endswith("seed=1") for run in command.running)
    assert command.search.validated(next_scout, STEPS, 5.0) == "", "it is at its end anyway"
    assert command.studies[0].statuses()[2] == "pruned"


def test_what_was_validated_before_a_kill_still_counts(tmp_path: Path) -> None:
    words, changes = [LR], {"n_trials": 6, "pruner": "median"}
    command = Command(tmp_path, *words, started=[], **changes)
    for _ in range(2):
        command.fill(1)
        command.search.validated(command.running[0], 10, 1.0)
        command.end(command.running[0])
    command.fill(1)
    (run,) = command.running
    record = run.folder.record()
    record.status, record.step = "running", 10
    run.folder.write(record)
    run.folder.metrics.write_text("step,train/objective,val/nll\n5,3.0,\n10,2.0,5.0\n20,2.0,1.0\n")
    again = Command(tmp_path, *words, started=[], **changes)
    again.fill(1)
    assert again.studies[0].statuses()[2] == "pruned"
    record = run.folder.record()
    assert record.status == "pruned" and "at step 10" in (record.error or "")
    assert again.running[0].label != run.label


def test_the_trials_that_follow_do_not_depend_on_how_quickly_a_run_was_stopped(tmp_path: Path) -> None:
    command = Command(tmp_path, LR, started=[], n_trials=6, pruner="median")
    for _ in range(2):
        command.fill(1)
        command.search.validated(command.running[0], 10, 1.0)
        command.end(command.running[0])
    command.fill(1)
    assert command.search.validated(command.running[0], 10, 5.0)
    command.end(command.running[0], "completed", 0.5)
    assert command.studies[0].statuses()[2] == "pruned"


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_an_end_without_a_result_is_in_the_budget(tmp_path: Path, status: str) -> None:
    command = Command(tmp_path, LR, started=[], n_trials=2)
    command.fill(1)
    command.end(command.running[0], status)
    command.work(1)
    assert command.studies[0].statuses() == [status, "completed"]


def test_a_refused_trial_is_said_and_the_next_one_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(tmp_path, LR, started=[], n_trials=3)
    command.wrong = (0,)  # type: ignore[attr-defined]
    command.work(1)
    assert command.studies[0].statuses() == ["refused", "completed", "completed"]
    assert command.search.refused == ["trial 0 is wrong"]
    assert "[1/3] refused: trial 0 is wrong" in capsys.readouterr().err


def test_an_interrupted_trial_waits_for_the_next_command(tmp_path: Path) -> None:
    command = Command(tmp_path, LR, started=[], n_trials=3)
    command.fill(1)
    (run,) = command.running
    command.end(run, "interrupted", step=5)
    again = Command(tmp_path, LR, started=[], n_trials=3)
    again.fill(1)
    assert again.running[0].label == run.label and again.running[0].step == 5
