"""Output while a sweep runs: bars on a terminal, a plain line now and then where output is piped."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from losslab.console import in_notebook, out, say

if TYPE_CHECKING:
    from losslab.sweeps.followed_run import Run

_SECONDS_BETWEEN_LINES = 60.0
_SECONDS_BETWEEN_CELLS = 0.5
_LONGEST_LABEL = 40
_OVER = ("completed", "diverged", "failed", "pruned", "skipped")


class Display:
    """Overall progress in optimizer steps, and each running run's own.

    Args:
        runs: those that have come; more are added while it shows.
        expected: how many there will be; default: those that have come.
    """

    def __init__(self, runs: list[Run], expected: Callable[[], int] | None = None) -> None:
        self._runs = runs
        self._expected = expected or (lambda: len(runs))
        self._firsts: dict[int, int] = {}
        """The step at which each run stood when it came, by its number."""
        self._note_new()
        self._began = self._last_line = time.monotonic()
        self._bars: Progress | None = None
        self._rows: dict[int, TaskID] = {}
        self._cell: Any = None
        """The output of a notebook's cell that is replaced again and again."""

    def __enter__(self) -> Display:
        if out.quiet or all(run.status == "skipped" for run in self._runs):
            return self
        if in_notebook():
            self._cell = _ipython().display(_ipython().HTML(""), display_id=True)
        elif out.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
                console=out, transient=True,
            )  # fmt: skip
            self._overall = self._bars.add_task("sweep", total=None, text="")
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        if self._cell is not None:
            self._fill("")

    def refresh(self) -> None:
        self._note_new()
        if self._bars is not None:
            self._draw(self._bars)
        elif self._cell is not None:
            if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_CELLS:
                self._last_line = time.monotonic()
                self._fill(self._to_html())
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            say(f"{self._done()}/{self._total()} steps; {self._summary()}")

    def _fill(self, html: str) -> None:
        self._cell.update(_ipython().HTML(html))

    def _to_html(self) -> str:
        running = [run for run in self._runs if run.process is not None]
        lines = [(self._done(), self._total(), self._summary())]
        lines += [(run.step, run.max_steps, f"{run.label}  {run.text}") for run in running if len(self._runs) > 1]
        lines = lines if len(self._runs) > 1 else [(run.step, run.max_steps, run.text) for run in running]
        return "<br>".join(
            f'<progress value="{step}" max="{total}"></progress> {step:,}/{total:,} {escape(text)}'
            for step, total, text in lines
        )

    def _draw(self, bars: Progress) -> None:
        bars.update(self._overall, total=self._total(), completed=self._done(), text=self._summary())
        running = {run.number: run for run in self._runs if run.process is not None}
        for number in self._rows.keys() - running.keys():
            bars.remove_task(self._rows.pop(number))
        for number, run in running.items():
            if number not in self._rows:
                label = run.label if len(run.label) <= _LONGEST_LABEL else f"{run.label[: _LONGEST_LABEL - 1]}…"
                self._rows[number] = bars.add_task(f"  {label}", total=run.max_steps, text="")
            bars.update(self._rows[number], completed=run.step, text=run.text)

    def _note_new(self) -> None:
        for run in self._runs:
            self._firsts.setdefault(run.number, run.step)

    def _total(self) -> int:
        """Steps of all runs; those that have not come are as long as the others."""
        known = sum(run.max_steps for run in self._runs)
        return known * max(self._expected(), len(self._runs)) // max(len(self._runs), 1)

    def _done(self) -> int:
        return sum(run.max_steps if run.status in _OVER else run.step for run in self._runs)

    def _summary(self) -> str:
        over = sum(run.status in _OVER for run in self._runs)
        failed = sum(run.status == "failed" for run in self._runs)
        text = f"{over}/{self._expected()} runs" + (f", {failed} failed" if failed else "")
        gone = sum(run.step for run in self._runs) - sum(self._firsts.values())
        if gone <= 0:
            return text
        left = (self._total() - self._done()) * (time.monotonic() - self._began) / gone
        return f"{text}, {timedelta(seconds=round(left))} left"


def _ipython() -> Any:
    """The module by which a notebook shows things; only a notebook's kernel has it for certain."""
    return import_module("IPython.display")
