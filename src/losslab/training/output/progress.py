"""Progress of a run: a bar on a terminal, a plain line every few seconds where output is piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from losslab import console
from losslab.console import out
from losslab.reports import Progress as Report
from losslab.training.output.messages import say

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_REPORTS = 0.25


Advance = Callable[[int], None]
"""Takes the units of work that were done since it was called last."""


@contextmanager
def shown_work(
    what: str, total: int | None, *, enabled: bool = True, bar: Progress | None = None, on: Console = out
) -> Iterator[Advance]:
    """Show how far work has come that takes minutes: a bar on a terminal, a line every few seconds elsewhere.

    Args:
        what: words for it.
        total: units of it; None: nobody knows.
        bar: one that is being shown, which gets a line more.
        on: standard output, or standard error where that holds the results.
    """
    done, last = 0, time.monotonic()
    own = bar
    if enabled and bar is None and (console.is_live() if on is out else on.is_terminal and not out.is_terminal):
        own = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=on,
            transient=True,
        )  # fmt: skip
        own.start()
    line = None if own is None or not enabled else own.add_task(what, total=total, text="")

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if own is not None and line is not None:
            own.advance(line, count)
        elif enabled and time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            told = f"{what}: {done:,}" + ("" if total is None else f" of {total:,}")
            say(told) if on is out else on.print(told, markup=False)

    try:
        yield advance
    finally:
        if own is not None and line is not None:
            own.remove_task(line)
            if bar is None:
                own.stop()


class RunProgress:
    """Shows step, objective, primary metric, speed and time left.

    Args:
        first: optimizer steps already done.
        total: the budget.
        positions_per_step: for the speed.
        positions: what these are called, `tokens` for a language model.
        metric: the metric that a validation shows, such as val/nll_scaled.
        enabled: false for silence (other ranks, or trainer.enable_progress_bar=false).
    """

    def __init__(
        self,
        *,
        first: int,
        total: int,
        positions_per_step: float,
        metric: str,
        enabled: bool,
        positions: str = "tokens",
    ) -> None:
        self.first = first
        self.total = total
        self.positions_per_step = positions_per_step
        self.positions = positions
        self.enabled = enabled
        self.metric = metric
        self.validation = ""
        self._started = self._last_line = time.monotonic()
        self._last_report = 0.0
        self._away = 0.0
        self._paused_at: float | None = None
        self._bar: Progress | None = None
        if enabled and console.is_live():
            self._bar = Progress(
                TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(), console=out, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("step", total=total, completed=first, text="")
            self._bar.start()

    def begin(self) -> None:
        """Training starts now."""
        self._started = self._last_line = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of the speed the time that is not training: validations, checkpoints."""
        self._paused_at = time.monotonic()
        try:
            yield
        finally:
            self._away += time.monotonic() - self._paused_at
            self._paused_at = None

    def work(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """See `shown_work`; beside the bar of the run while that is shown."""
        return shown_work(what, total, enabled=self.enabled, bar=self._bar)

    def speed(self, step: int) -> float:
        """Positions per second of this session's training alone."""
        until = time.monotonic() if self._paused_at is None else self._paused_at
        return (step - self.first) * self.positions_per_step / max(until - self._started - self._away, 1e-9)

    def step(self, step: int, objective: float) -> None:
        if not self.enabled:
            return
        text = f"objective {objective:.4g}{self.validation}  {self.speed(step):,.0f} {self.positions}/s"
        if console.listener is not None and time.monotonic() - self._last_report >= _SECONDS_BETWEEN_REPORTS:
            self._last_report = time.monotonic()
            console.listener(Report(step, text))
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES or step == self.total:
            self._last_line = time.monotonic()
            left = (self.total - step) * (self._last_line - self._started) / max(step - self.first, 1)
            say(f"step {step}/{self.total}  {text}  {left:,.0f} s left")

    def validated(self, value: float) -> None:
        self.validation = f"  {self.metric} {value:.4f}"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
