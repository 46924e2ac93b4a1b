"""Output while something works: a bar on a terminal, one plain line where output is piped."""

from __future__ import annotations

import errno
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, track

from losslab.reports import Note, Report

T = TypeVar("T")
_KERNEL = "ipykernel"
_WIDEST = 1e6
_SECONDS = 5.0
"""Between two lines about the same work."""
_NAMES = 16
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}
Listener = Callable[[Report], None]
Advance = Callable[[int, int], None]
"""Takes the units of work, and the bytes, that were done since it was called last."""


class _Console(Console):
    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.on_broken_pipe()  # the terminal was closed

    def on_broken_pipe(self) -> None:
        """Continue in silence where the reader of the output has gone (`| head`), instead of ending the program."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())  # what Python flushes at its end goes nowhere


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose output calls itself a terminal and moves no cursor."""
    if _KERNEL not in sys.modules:
        return False
    from IPython import get_ipython  # which the kernel has imported

    return getattr(get_ipython(), "kernel", None) is not None


def is_live() -> bool:
    """Whether a bar can be redrawn where it stands."""
    return sys.stdout.isatty() and not in_notebook()


_PLAIN: dict[str, Any] = {"force_jupyter": False, "force_terminal": False} if in_notebook() else {}
out = _Console(highlight=False, soft_wrap=True, **_PLAIN)
err = _Console(stderr=True, highlight=False, soft_wrap=True, **_PLAIN)
listener: Listener | None = None
"""A function that passes reports on to the process of ours that started this one, and has the terminal."""


def width_of(names: Iterable[str]) -> int:
    """Columns for names that stand before figures."""
    return max([_NAMES, *(len(name) + 1 for name in names)])


def figure(value: float | None) -> str:
    """Four decimals, powers of ten where there is no room for them, or a dash where there is no value (None, NaN); 12
    columns."""
    if value is None or math.isnan(value):
        return f"{'—':>12}"
    return f"{value:>12.4f}" if abs(value) < _WIDEST else f"{value:>12.4g}"


def say(message: str) -> None:
    """One line on standard output, as it is."""
    out.print(message, markup=False)


def write(text: str) -> None:
    """Text without a line's end, at once, on standard output: on a terminal without the characters that control it, and
    without those that its encoding lacks.

    Raises:
        BrokenPipeError: where the reader of the output has gone.
    """
    if out.is_terminal:
        text = text.translate(_CONTROLS)
    encoding = out.encoding
    out.file.write(text.encode(encoding, "replace").decode(encoding))
    out.file.flush()


def complain(message: str) -> None:
    """One line on standard error."""
    err.print(f"losslab: {message}", markup=False, style="red" if err.is_terminal else None)


def note(message: str) -> None:
    """Print a note, which is no mistake, on standard error, or report it to the process that started this one."""
    if listener is not None:
        listener(Note(message))
    else:
        complain(f"note: {message}")


@contextmanager
def measuring(description: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show how far long work has come, with megabytes a second and the time left: a bar on a terminal, elsewhere a line
    every few seconds.

    Args:
        total, done: units of the work: all, and those done before.

    Yields:
        A function of the units and the bytes that were done since its last call.
    """
    began = said = time.monotonic()
    first, size = done, 0

    def figures() -> str:
        seconds = max(time.monotonic() - began, 1e-9)
        left = (total - done) * seconds / (done - first) if done > first else math.inf
        when = f", {timedelta(seconds=round(left))} left" if math.isfinite(left) else ""
        return f"{size / 1e6 / seconds:,.1f} MB/s{when}"

    if not is_live():
        say(f"{description} …")

        def advance(units: int, num_bytes: int) -> None:
            nonlocal done, size, said
            done, size = done + units, size + num_bytes
            if time.monotonic() > said + _SECONDS:
                said = time.monotonic()
                say(f"{description}: {done / total:.0%}, {figures()}")

        yield advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task(description, total=total, completed=done, figures="")

        def redraw(units: int, num_bytes: int) -> None:
            nonlocal done, size
            done, size = done + units, size + num_bytes
            progress.update(task, completed=done, figures=figures())

        yield redraw


def working(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass `items` through, with a bar on a terminal and one line elsewhere."""
    if is_live():
        yield from track(items, description=description, total=total, console=out, transient=True)
    else:
        say(f"{description} …")
        yield from items
