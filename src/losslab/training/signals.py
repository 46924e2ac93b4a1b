"""SIGINT and SIGTERM set a flag; the run saves at the next optimizer-step boundary and ends."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class StopFlag:
    """Installed after Lightning's own handlers, which would end the process inside an optimizer step."""

    def __init__(self) -> None:
        self.raised = False
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self.raised

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may; a host that runs us elsewhere handles its own signals
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.raised and number == signal.SIGINT and "RANK" not in os.environ:
            raise KeyboardInterrupt  # the second Ctrl-C ends at once; under torchrun it is the first, passed on twice
        self.raised = True
