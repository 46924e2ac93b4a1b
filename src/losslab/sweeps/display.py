"""Output while a sweep runs: bars on a terminal, a plain line now and then where output is piped."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from losslab.console import out, say

if TYPE_CHECKING:
    from losslab.sweeps.followed_run import Run

_SECONDS_BETWEEN_LINES = 60.0
_LONGEST_LABEL = 40
_OVER = ("completed", "diverged", "failed", "skipped")


class Display:
    """Overall progress in optimizer steps, and each running run's own."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs
        self._total = sum(run.max_steps for run in runs)
        self._first = sum(run.step for run in runs)
        self._began = self._last_line = time.monotonic()
        self._bars: Progress | None = None
        self._rows: dict[int, TaskID] = {}

    def __enter__(self) -> Display:
        if out.is_terminal and any(run.status != "skipped" for run in self._runs):
            self._bars = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
                console=out, transient=True,
            )  # fmt: skip
            self._overall = self._bars.add_task("sweep", total=self._total, completed=self._first, text="")
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def refresh(self) -> None:
        if self._bars is not None:
            self._draw(self._bars)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            say(f"{self._done()}/{self._total} steps; {self._summary()}")

    def _draw(self, bars: Progress) -> None:
        bars.update(self._overall, completed=self._done(), text=self._summary())
        running = {run.number: run for run in self._runs if run.process is not None}
        for number in self._rows.keys() - running.keys():
            bars.remove_task(self._rows.pop(number))
        for number, run in running.items():
            if number not in self._rows:
                label = run.label if len(run.label) <= _LONGEST_LABEL else f"{run.label[: _LONGEST_LABEL - 1]}…"
                self._rows[number] = bars.add_task(f"  {label}", total=run.max_steps, text="")
            bars.update(self._rows[number], completed=run.step, text=run.text)

    def _done(self) -> int:
        return sum(run.max_steps if run.status in _OVER else run.step for run in self._runs)

    def _summary(self) -> str:
        over = sum(run.status in _OVER for run in self._runs)
        failed = sum(run.status == "failed" for run in self._runs)
        text = f"{over}/{len(self._runs)} runs" + (f", {failed} failed" if failed else "")
        gone = sum(run.step for run in self._runs) - self._first
        if gone <= 0:
            return text
        left = (self._total - self._done()) * (time.monotonic() - self._began) / gone
        return f"{text}, {timedelta(seconds=round(left))} left"
