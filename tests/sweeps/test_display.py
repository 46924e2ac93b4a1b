"""Output of a sweep: bars on a terminal, and elsewhere a plain line now and then."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from losslab.run_folder import RunFolder
from losslab.sweeps.display import Display
from losslab.sweeps.local import Run


def run(number: int, label: str = "", **changes: Any) -> Run:
    plain: dict[str, Any] = {"width": 1, "max_steps": 100, "trust": [], "status": "planned"}
    return Run(number, label or f"seed={number}", RunFolder(Path("outputs/runs") / str(number)), **(plain | changes))


def running(number: int, label: str = "", **changes: Any) -> Run:
    process: Any = object()
    return run(number, label, **({"status": "running", "process": process} | changes))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    screen = io.StringIO()
    console = Console(force_terminal=True, file=screen, width=100, color_system=None, _environ={"TERM": "xterm"})
    monkeypatch.setattr("losslab.sweeps.display.out", console)
    return screen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until `now` changes."""
    time = SimpleNamespace(now=1000.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr("losslab.sweeps.display.time", time)
    return time


def rows(screen: io.StringIO) -> list[str]:
    """Lines of the last picture, without the bars themselves."""
    lines = [line.replace("━", "").replace("╺", "").replace("╸", "") for line in screen.getvalue().splitlines()]
    words = [" ".join(line.split()) for line in lines]
    first = max(i for i, line in enumerate(words) if "sweep" in line)
    return [line.rpartition("\x1b[2K")[2].strip() for line in words[first:]]


def test_a_terminal_shows_the_sweep_and_what_runs(terminal: io.StringIO, clock: SimpleNamespace) -> None:
    runs = [
        run(1, status="completed", step=100),
        running(2, step=30, text="nll 3.25"),
        run(3),
        running(4, "loss=square optimizer.lr=0.001 model.width=128 seed=4", step=0),
    ]
    with Display(runs) as display:
        clock.now += 60
        runs[1].step = 50
        display.refresh()
    shown = rows(terminal)
    assert shown[0].startswith("sweep") and "150/400 1/4 runs, 0:12:30 left" in shown[0]
    assert shown[1].startswith("seed=2") and shown[1].endswith("50/100 nll 3.25")
    assert shown[2].startswith("loss=square optimizer.lr=0.001 model.wi…") and shown[2].endswith("0/100")
    assert "seed=1" not in terminal.getvalue() and "seed=3" not in terminal.getvalue()


def test_the_row_of_a_run_goes_with_its_process(terminal: io.StringIO, clock: SimpleNamespace) -> None:
    runs = [running(1), run(2)]
    with Display(runs) as display:
        display.refresh()
        runs[0].process, runs[0].status, runs[0].step = None, "failed", 20
        runs[1].process, runs[1].status = running(2).process, "running"
        display.refresh()
    shown = " ".join(rows(terminal))
    assert "seed=2" in shown and "seed=1" not in shown
    assert "100/200 1/2 runs, 1 failed" in shown


def test_nothing_is_drawn_where_all_is_done(terminal: io.StringIO) -> None:
    with Display([run(1, status="skipped", step=100)]) as display:
        display.refresh()
    assert terminal.getvalue() == ""


def test_elsewhere_a_plain_line_comes_now_and_then(capsys: pytest.CaptureFixture[str], clock: SimpleNamespace) -> None:
    runs = [run(1, status="skipped", step=100), running(2, step=20), run(3)]
    with Display(runs) as display:
        for _ in range(3):
            display.refresh()
        clock.now += 59.9
        display.refresh()
        assert capsys.readouterr().out == ""
        clock.now += 0.1
        runs[1].step = 50
        display.refresh()
        assert capsys.readouterr().out == "150/300 steps; 1/3 runs, 0:05:00 left\n"
        display.refresh()
        assert capsys.readouterr().out == ""
        clock.now += 60
        runs[1].status, runs[1].step = "failed", 60
        display.refresh()
        assert capsys.readouterr().out == "200/300 steps; 2/3 runs, 1 failed, 0:05:00 left\n"


def test_no_time_is_foretold_before_the_first_step(capsys: pytest.CaptureFixture[str], clock: SimpleNamespace) -> None:
    with Display([running(1, step=50)]) as display:
        clock.now += 60
        display.refresh()
    assert capsys.readouterr().out == "50/100 steps; 0/1 runs\n"
