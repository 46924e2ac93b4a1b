"""SIGINT and SIGTERM set a flag; the run saves at the next optimizer-step boundary and ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Installed after Lightning's own handlers, which would end the process inside an optimizer step.

    Made before Lightning's are installed: `restore` puts back what was there then.
    """

    def __init__(self) -> None:
        self.raised = False
        self._original = {number: signal.getsignal(number) for number in _SIGNALS}

    def __call__(self) -> bool:
        return self.raised

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may; a host that runs us elsewhere handles its own signals
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def restore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._original.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.raised and number == signal.SIGINT and "RANK" not in os.environ:
            raise KeyboardInterrupt  # the second Ctrl-C ends at once; under torchrun it is the first, passed on twice
        self.raised = True


@contextmanager
def postponed_signals() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM only after the block: torchrun, for one, sends them as soon as another rank ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in dict.fromkeys(came):
            signal.raise_signal(late)
