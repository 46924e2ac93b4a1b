"""`losslab status --watch`: the ledger again and again, cut to what a terminal shows. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rich.live import Live
from rich.table import Table
from rich.text import Text

from losslab import console

_SECONDS_BETWEEN_LOOKS = 2.0
_PATIENCE = 15.0
"""Seconds for which nothing runs between two jobs of a sweep, and after which nothing will."""
_URGENCY = ("running", "damaged", "failed", "killed", "interrupted", "diverged", "planned")
"""States by how soon a run of them is to be seen; the others are over."""


class _Line(Protocol):
    @property
    def state(self) -> str: ...


L = TypeVar("L", bound=_Line)


def watch(look: Callable[[], list[L]], table: Callable[[list[L]], Table], told: Callable[[list[L]], list[str]]) -> None:
    """Redraw the ledger until nothing has run for a while, and leave the whole of it on the screen.

    Args:
        look: finds the lines.
        table: draws them.
        told: sentences to show below the table.
    """
    lines, below, idle = look(), [""], 0.0
    with Live(console=console.out, auto_refresh=False) as live:
        try:
            while True:
                below = told(lines)
                live.update(_view(lines, table, below, console.out.height), refresh=True)
                idle = 0.0 if any(line.state == "running" for line in lines) else idle + _SECONDS_BETWEEN_LOOKS
                if idle > _PATIENCE:
                    return
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                lines = look()
        finally:
            live.update(_view(lines, table, below, None))


def fitting(lines: Sequence[L], room: int) -> list[L]:
    """At most `room` of the lines, in their order: those of runs that run first, those of runs that are over last."""
    urgency = {state: i for i, state in enumerate(_URGENCY)}
    order = sorted(range(len(lines)), key=lambda i: (urgency.get(lines[i].state, len(urgency)), i))
    return [lines[i] for i in sorted(order[: max(room, 0)])]


def _view(lines: list[L], table: Callable[[list[L]], Table], told: list[str], height: int | None) -> Table:
    """The ledger with sentences below it, in at most `height` rows where there is a height."""
    below, shown = _folded(told), lines
    if height is not None and len(lines) > (room := height - 1 - len(below.wrap(console.out, console.out.width))):
        shown = fitting(lines, max(room - 1, 1))
        below = _folded([f"… and {len(lines) - len(shown)} more", *told])
    view = table(shown)
    view.caption, view.caption_justify = below, "left"
    return view


def _folded(told: list[str]) -> Text:
    return Text("\n".join(told), no_wrap=False, overflow="fold")
