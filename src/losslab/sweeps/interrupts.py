"""What Ctrl-C means while a sweep runs. No torch here."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def counting_signals(note: Callable[[], None]) -> Iterator[None]:
    """Call `note` for each Ctrl-C, SIGTERM and closed terminal, in place of what they do otherwise."""

    def handle(number: int, frame: FrameType | None) -> None:
        note()

    wanted = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
