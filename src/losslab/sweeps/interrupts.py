"""Handling of Ctrl-C while a sweep runs. No torch here."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from losslab.training.process.signals import handling


@contextmanager
def counting_signals(note: Callable[[], None]) -> Iterator[None]:
    """Call `note` for each Ctrl-C, SIGTERM and closed terminal, instead of their usual handlers; in a thread other than
    the main one, which has none, never."""

    def handle(number: int, frame: FrameType | None) -> None:
        note()

    wanted = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    with handling(dict.fromkeys(wanted, handle)):
        yield


class Interrupts:
    """A context in which Ctrl-C is noted as well as raised: code that composes may swallow the exception, or
    raise another in its place. A process that ignores Ctrl-C goes on ignoring it."""

    def __init__(self) -> None:
        self.noted = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raises KeyboardInterrupt where one came."""
        if self.noted:
            raise KeyboardInterrupt

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.noted = True
        raise KeyboardInterrupt
