"""Start processes that have torch and Lightning in memory from the beginning. No torch here."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from losslab.errors import UserError
from losslab.threads import waiting
from losslab.training.process.allocator import allocator_environment

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""Forking a process that holds macOS's frameworks is not safe."""
_ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Libraries must not open a pool of threads while they are imported: forked children have none of them."""

context = multiprocessing.get_context(METHOD)


def warm_up() -> None:
    """Let the server begin with its imports, which take seconds; this returns at once."""
    if METHOD == "forkserver":
        context.set_forkserver_preload(["losslab.sweeps.preload"])
        path = os.pathsep.join(path for path in sys.path if path)
        # The current folder is there only if this process imports from it, and at the same place in the order.
        resource_tracker.ensure_running()  # which the server starts otherwise, and which lets SIGINT through again
        own = _ALONE | waiting() | allocator_environment() | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
        with changed_environment(own), _no_interrupts():
            forkserver.ensure_running()


def end_early() -> None:
    """End a server that nobody will ask: it would go on with its imports for seconds after this process has ended, and
    keep the output open that it shares."""
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def start(target: Callable[..., None], *arguments: Any, name: str) -> BaseProcess:
    """Call `target` in a new process. Raises UserError where the server has ended instead."""
    for last_try in (False, True):  # a server that has just been killed is taken for a living one, once
        warm_up()
        process: BaseProcess = context.Process(target=target, args=arguments, name=name, daemon=False)  # type: ignore[attr-defined]
        try:
            with _without_main():
                process.start()
            break
        except (EOFError, OSError) as error:
            if last_try:
                reason = str(error) or type(error).__name__
                raise UserError(f"no process for a run could be started ({reason}); see above") from None
    return process


def follow(target: Callable[..., None], *arguments: Any, name: str) -> tuple[BaseProcess, Connection]:
    """Call `target` in a new process, its last argument one end of a pipe; returns the process and the other end.

    Raises:
        UserError, OSError: where there is no process, or no pipe, to be had.
    """
    receiving, sending = context.Pipe(duplex=False)
    try:
        return start(target, *arguments, sending, name=name), receiving
    except (UserError, OSError):
        receiving.close()
        raise
    finally:
        sending.close()


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not import the program that starts them: a script that trains, without a guard of
    `__name__`, would train again in each."""
    original = spawn.get_preparation_data

    def prepare(name: str) -> dict[str, Any]:
        return {key: value for key, value in original(name).items() if not key.startswith("init_main")}

    spawn.get_preparation_data = prepare
    try:
        yield
    finally:
        spawn.get_preparation_data = original


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Block SIGINT while a process starts, until it ignores the signal by itself: see preload.py."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def changed_environment(values: Mapping[str, str]) -> Iterator[None]:
    saved = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
