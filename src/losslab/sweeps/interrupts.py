"""Handling of Ctrl-C, SIGTERM and a closed terminal, from a command's first moment on. No torch here."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from losslab.training.process.signals import Handler, handling

NOTHING_STARTED = "stopped before anything was started"
STOPPED = 130
"""The shell's code for a command that Ctrl-C ended."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def counting_signals(note: Callable[[], None]) -> Iterator[None]:
    """Call `note` for each Ctrl-C, SIGTERM and closed terminal, instead of their usual handlers; in a thread other than
    the main one, which has none, never."""

    def handle(number: int, frame: FrameType | None) -> None:
        note()

    wanted = [n for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    with handling(dict.fromkeys(wanted, handle)):
        yield


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the program with a sentence at the first signal, while it does nothing but import: an exception would be a
    traceback out of some package, or be swallowed there."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, f"losslab: {NOTHING_STARTED}\n".encode())
        os._exit(STOPPED)

    with handling(dict.fromkeys(_unhandled(), end)):
        yield


@contextmanager
def raising() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM and when the terminal is closed, as Python does at Ctrl-C."""
    with handling(dict.fromkeys(_unhandled(), _interrupt)):
        yield


@contextmanager
def unheeded() -> Iterator[None]:
    """Pass over signals while a program that is about to end says why: another Ctrl-C would leave that unsaid."""
    with handling(dict.fromkeys(_SIGNALS, signal.SIG_IGN)):
        yield


def end_by_code() -> None:
    """End the program by the code of Ctrl-C, from now on, at a signal that comes after its last word: by itself Python
    prints a traceback then, and dies of the signal while it takes itself apart."""
    for number in _unhandled():
        signal.signal(number, _leave)
    atexit.register(_ignore)  # as the first, so that it runs as the last


class Interrupts:
    """A context in which Ctrl-C, SIGTERM and a closed terminal are noted as well as raised: code that composes may
    swallow the exception, or raise another in its place. Signals that a process ignores, or has handlers of its own
    for, stay as they are."""

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._raise) for number in _unhandled()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises KeyboardInterrupt where one came."""
        if self.noted:
            raise KeyboardInterrupt

    def _raise(self, number: int, frame: FrameType | None) -> NoReturn:
        self.noted = True
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(STOPPED)


def _ignore() -> None:
    """Python puts the system's handler in the place of its own ones now, and leaves those that ignore."""
    for number in _unhandled():
        signal.signal(number, signal.SIG_IGN)


def _unhandled() -> list[signal.Signals]:
    """Signals that nobody but Python and this module handles."""
    usual: tuple[Handler, ...] = (signal.SIG_DFL, signal.default_int_handler, _interrupt, _leave)
    return [number for number in _SIGNALS if signal.getsignal(number) in usual]
