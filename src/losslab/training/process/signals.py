"""SIGINT and SIGTERM set a flag; the run saves at the next optimizer-step boundary and ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], Any] | int | None
"""A value that `signal.signal` takes."""


@contextmanager
def handling(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Install handlers, and put the earlier ones back at the end. Only the main thread may: in another one this does
    nothing, and signals stay with the host."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


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
    came: list[int] = []
    try:
        with handling({number: lambda number, _: came.append(number) for number in _SIGNALS}):
            yield
    finally:
        for late in dict.fromkeys(came):
            signal.raise_signal(late)
