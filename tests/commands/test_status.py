"""The ledger: what runs are in which state, out of their records alone."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from losslab.commands.status import _table, look, status, totals
from losslab.commands.watching import fitting
from losslab.errors import UserError
from losslab.locks import lock
from losslab.metric import Metric
from losslab.metrics.table import METRICS
from losslab.records import FILE, Record


def add(name: str, declared: Sequence[Metric] = METRICS, primary: str = "nll_scaled", **changes: Any) -> Path:
    folder = Path("outputs/first") / name
    folder.mkdir(parents=True)
    plain: dict[str, Any] = {"identity": name, "name": "first", "max_steps": 100}
    record = Record(**(plain | changes))
    if record.status != "failed":  # which ended before its task was built
        record.declare(declared, primary)
    record.write(folder)
    return folder


@pytest.fixture(autouse=True)
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    timing = {"seconds": 30.0}
    best = {"best": {"val/nll_scaled": 3.25, "step": 40}}
    add("a", status="completed", step=100, timing=timing, metrics=best)
    add("b", status="running", step=40, timing=timing, metrics=best, throughput={"tokens_per_second": 5000.0})
    add("c", status="failed", step=0, error="first line\nKeyError: 'x'")
    add("d", status="diverged", step=20, timing=timing, error="nan at step 25")
    (add("e") / FILE).write_text("{")
    add("f", status="planned", max_steps=200)
    add("g", status="interrupted", step=20, timing={"seconds": 6.0}, error="stopped by a signal after step 20")


def states() -> dict[str, str]:
    return {line.run: line.state for line in look(Path("outputs/first"))}


def test_each_run_has_its_state_and_the_killed_one_is_told_from_the_running_one() -> None:
    expected = {"a": "completed", "b": "killed", "c": "failed", "d": "diverged", "e": "damaged"}
    expected |= {"f": "planned", "g": "interrupted"}
    assert states() == expected
    with lock(Path("outputs/first/b")):
        assert states() == expected | {"b": "running"}
    with lock(Path("outputs/first/f")), lock(Path("outputs/first/g")):
        assert states() == expected | {"f": "running", "g": "running"}, "they have just begun"


def test_the_time_left_follows_from_the_speed_so_far() -> None:
    lines = {line.run: line for line in look(Path("outputs/first"))}
    left = {name: line.left for name, line in lines.items() if line.left is not None}
    mean = (30 + 30 + 30 + 6) / (100 + 40 + 20 + 20)
    assert left == {"b": 45.0, "f": pytest.approx(200 * mean), "g": pytest.approx(24.0)}
    told = totals(list(lines.values()))
    assert told["seconds_left"] == pytest.approx(sum(left.values()))
    assert told["seconds_until_end"] is None, "nothing runs"
    with lock(Path("outputs/first/b")), lock(Path("outputs/first/g")):
        told = totals(look(Path("outputs/first")))
    assert told["seconds_until_end"] == pytest.approx(sum(left.values()) / 2)


def test_it_is_printed_whole_with_the_last_line_of_each_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(Path("outputs"), watch=False, as_json=False) == 0
    told = capsys.readouterr().out
    assert "val/nll_scaled" in told.splitlines()[0]
    assert "first/b  killed" in told and "40/100" in told and "3.2500" in told and "0:00:45" in told
    assert "first/c: KeyError: 'x'" in told and "first line" not in told
    states = "1 completed, 1 damaged, 1 diverged, 1 failed, 1 interrupted, 1 killed, 1 planned"
    assert f"7 runs: {states}; 0:02:56 of training left" in told
    with lock(Path("outputs/first/b")):
        status(Path("outputs"), watch=False, as_json=False)
    assert "about 0:02:56 until the last one ends" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("provenance", "heading"),
    [
        ({"positions": "rows", "positions_per_sample": 1.0}, "rows/s"),
        ({"positions": "positions"}, "positions/s"),
        ({"positions": "tokens"}, "tokens/s"),
        ({}, "tokens/s"),
        ({"text": {"rows": {"train": 9}}, "positions_per_sample": 7.5}, "positions/s"),
        ({"text": {"rows": {"train": 9}}, "positions_per_sample": 1.0}, "rows/s"),
    ],
    ids=["of rows", "of tags", "of text", "an older one", "an older one of tags", "an older one of rows"],
)
def test_the_speed_is_in_what_the_run_counts(
    provenance: dict[str, Any], heading: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        path = Path("outputs/first") / name
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    add("a", status="completed", step=100, provenance=provenance, throughput={"tokens_per_second": 5000.0})
    status(Path("outputs/first"), watch=False, as_json=False)
    assert heading in capsys.readouterr().out.splitlines()[0].split()
    add("i", status="completed", step=100, provenance={"positions": "words"}, throughput={"tokens_per_second": 70.0})
    status(Path("outputs/first"), watch=False, as_json=False)
    first, *lines = capsys.readouterr().out.splitlines()
    assert (
        " speed " in first
        and any(f"5,000 {heading}" in line for line in lines)
        and any("70 words/s" in x for x in lines)
    )


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(Path("outputs/first"), watch=False, as_json=True) == 0
    content = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in content["runs"]] == [
        "completed",
        "killed",
        "failed",
        "diverged",
        "damaged",
        "planned",
        "interrupted",
    ]
    assert content["totals"]["runs"] == 7
    first = content["runs"][0]
    assert (first["primary"], first["best"], first["nll_scaled"]) == ("nll_scaled", 3.25, 3.25)


ERROR = Metric("error", "root mean squared error", "cm", higher_is_better=False, margin=0.1)
"""A name that the ledger has a column of its own for."""


def test_a_run_of_another_task_is_shown_by_its_own_primary_metric(capsys: pytest.CaptureFixture[str]) -> None:
    add("h", [ERROR], "error", status="completed", step=100, metrics={"best": {"val/error": 7.5, "step": 40}})
    status(Path("outputs/first"), watch=False, as_json=False)
    heading, first, *_, last = capsys.readouterr().out.splitlines()[:9]
    assert heading.split()[:4] == ["run", "state", "step", "val"]
    assert "nll_scaled 3.2500" in first and "error 7.5000" in last
    status(Path("outputs/first/h"), watch=False, as_json=False)
    heading, only, *_ = capsys.readouterr().out.splitlines()
    assert "val/error" in heading and only.split()[3] == "7.5000"
    status(Path("outputs/first/h"), watch=False, as_json=True)
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["primary"], run["best"], run["error"]) == ("error", 7.5, None)


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_without_runs_is_told(folder: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=folder):
        status(Path(folder), watch=False, as_json=False)


def test_a_debug_run_and_the_reports_of_a_profiler_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    folder = add("h", status="completed", provenance={"debug": {"trainer.fast_dev_run": 1}})
    (folder / "profile").mkdir()
    (folder / "profile" / "fit-simple.txt").touch()
    assert status(folder, watch=False, as_json=False) == 0
    said = capsys.readouterr().out.splitlines()
    assert "h: debug run (trainer.fast_dev_run=1), which compare leaves out" in said
    assert "h: trainer.profiler wrote profile/fit-simple.txt" in said
    assert status(folder, watch=False, as_json=True) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["debug"], run["profile"]) == ({"trainer.fast_dev_run": 1}, ["profile/fit-simple.txt"])


def test_a_run_that_a_callback_ended_says_where_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = {"step": 40, "by": "early_stopping", "reason": "val/nll did not improve"}
    add("h", status="completed", step=40, stopped=stopped)
    assert status(Path("outputs/first"), watch=False, as_json=False) == 0
    assert (
        "h: stopped after step 40 of 100 by callbacks.early_stopping: val/nll did not improve"
        in capsys.readouterr().out.splitlines()
    )
    assert status(Path("outputs/first"), watch=False, as_json=True) == 0
    runs = {run["run"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert runs["h"]["stopped"] == stopped
    assert runs["a"]["stopped"] == {}


def test_watching_without_a_terminal_is_one_look_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(Path("outputs/first"), watch=True, as_json=False) == 0
    said = capsys.readouterr()
    assert "7 runs: 1 completed" in said.out
    assert said.err == "losslab: note: --watch redraws a terminal, which the output is not: this is one look\n"
    with pytest.raises(UserError, match="--watch redraws a terminal and --json is for programs: choose one"):
        status(Path("outputs/first"), watch=True, as_json=True)


def test_a_watch_ends_when_nothing_runs_or_at_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr("losslab.console.out", terminal)
    waits: list[float] = []
    monkeypatch.setattr("losslab.commands.watching.time.sleep", waits.append)
    assert status(Path("outputs/first"), watch=True, as_json=False) == 0
    assert 10 <= sum(waits) <= 20 and "7 runs: 1 completed" in terminal.file.getvalue()  # type: ignore[attr-defined]

    def press(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("losslab.commands.watching.time.sleep", press)
    with lock(Path("outputs/first/b")):
        assert status(Path("outputs/first"), watch=True, as_json=False) == 0


def test_a_low_and_narrow_terminal_shows_what_runs_and_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=60, height=8, color_system=None)
    monkeypatch.setattr("losslab.console.out", terminal)
    monkeypatch.setattr("losslab.commands.status.told_verdicts", lambda folder: ["word " * 20 + "end"])
    screens: list[str] = []

    def press(seconds: float) -> None:
        screens.append(terminal.file.getvalue())  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr("losslab.commands.watching.time.sleep", press)
    with lock(Path("outputs/first/g")):
        assert status(Path("outputs/first"), watch=True, as_json=False) == 0
    (screen,) = screens
    assert screen.rstrip().count("\n") < 8 and "running" in screen and "… and 6 more" in screen
    assert "7 runs: " in screen and screen.rstrip().endswith("end"), "a sentence is folded, not cut"
    whole = terminal.file.getvalue()[len(screen) :]  # type: ignore[attr-defined]
    assert all(state in whole for state in states().values() if state != "interrupted") and "more" not in whole


def test_empty_columns_and_this_machine_leave_their_room_to_the_names() -> None:
    done = [replace(line, left=None) for line in look(Path("outputs/first"))]
    here, elsewhere = ([replace(line, host=host) for line in done] for host in (platform.node(), "another-host"))
    headings = [[column.header for column in _table(lines).columns] for lines in (here, [*here, *elsewhere])]
    assert headings[0] == ["run", "state", "step", "val/nll_scaled", "tokens/s", "elapsed"]
    assert headings[1] == [*headings[0], "host"]


def test_runs_that_are_over_give_way_first() -> None:
    lines = look(Path("outputs/first"))
    assert [line.run for line in fitting(lines, 3)] == ["b", "c", "e"]
    assert fitting(lines, 9) == lines and fitting(lines, 0) == []
