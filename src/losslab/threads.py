"""Threads of a process that computes. No torch here: libraries read these settings once, when they are imported."""

from __future__ import annotations

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""Threads that spin for each other come almost to a stop when something else needs the cores; those that fall asleep
at once wait for each other's waking at every product. A microsecond of spinning costs little either way."""


def waiting() -> dict[str, str]:
    """Environment variables for threads that wait for each other; none where somebody has set one of them."""
    return {} if os.environ.keys() & WAITING.keys() else dict(WAITING)


def wait_asleep() -> None:
    """Let threads of this process, and of those that it starts, wait asleep. Call this before torch is imported."""
    os.environ.update(waiting())
