"""The process that is forked: losslab's modules and all that they import, in memory.

It computes nothing, so that it holds no threads that its children would lack. It imports everything at the first
request, and ends with the process that started it.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import gc
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import sys
import threading
import types
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from warm_python import FLAGS, SERVER, WORKER, stand_in

RANK = "losslab.training.process.worker"
MODULES = (
    "losslab.cli",
    "losslab.commands.compare",
    "losslab.commands.train",
    "losslab.sweeps.job",
    "losslab.sweeps.planning",
    "losslab.data.module",
    "losslab.data.python_docs",
    "losslab.losses.cross_entropy",
    "losslab.models.decoder",
    "losslab.tasks.lm",
    "losslab.training.origins.longer",
    RANK,
    "tensorboard.backend.event_processing.event_accumulator",
    "torch.distributed.run",
    "torch.distributed.tensor",
    "submitit.core._submit",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "pydantic.type_adapter",
    "rich._emoji_codes",
)
_COMPOSING = ExitStack()
_HIGH = 500
"""Descriptors from here on are nobody's."""


def _serve(listener: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each request; returns it, and its files, in the process that is to carry it out."""
    tests = os.pidfd_open(os.getppid())
    ready = False
    while True:
        if tests in select.select([listener, tests], [], [])[0]:
            shutil.rmtree(Path(os.environ[SERVER]).parent, ignore_errors=True)
            sys.exit()
        if not ready:
            importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)  # as tests/conftest.py
            for name in MODULES:
                importlib.import_module(name)
            _compose()
            gc.freeze()  # a child's collections would copy all of it
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the processes between ended
            ready = True
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(tests)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _fork(connection)
        connection.close()


def _compose() -> None:
    """Let the children find what most of them compose of."""
    from hydra.core.plugins import Plugins
    from hydra.core.singleton import Singleton

    from losslab.config.compose import compose_config

    sys.path.insert(0, str(Path(__file__).parent))
    from composed_once import composing_once

    del sys.path[0]

    _COMPOSING.enter_context(composing_once())
    for overrides in ([], ["data=text"], ["data=text", "loggers=none"]):
        compose_config(overrides, None, with_hydra=True)
    Singleton._instances.pop(Plugins)  # each child looks for those in its own folders


def _fork(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Stay as the parent that reports the child's pid and how it ended; returns in the child alone."""
    os.setsid()
    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 250)
    if not message:
        os._exit(0)
    asked: dict[str, Any] = json.loads(message)
    pid = os.fork()
    if pid == 0:
        connection.close()
        return asked, files
    for file in (0, 1, 2, *files):
        os.close(file)
    caller = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    note = Path(os.environ[SERVER]).with_name(f"{caller}.pid")
    if asked["stands_in"]:
        note.write_text(str(pid))
    with suppress(OSError):
        connection.send(str(pid).encode())
    ended = os.pidfd_open(pid)
    if ended not in select.select([connection, ended], [], [])[0]:  # the caller was killed
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if asked["stands_in"]:
        note.unlink(missing_ok=True)
    with suppress(OSError):
        connection.send(str(code).encode())
    os._exit(0)


def _take_place(asked: dict[str, Any], files: list[int]) -> list[str]:
    """Become the process that was asked for; returns its arguments."""
    if asked["group"] == "session":
        os.setsid()
    elif asked["group"] == "group":
        os.setpgid(0, 0)
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _HIGH) for file in files]
    for file in {0, 1, 2, *files}:
        os.close(file)
    for file, name in zip(moved, asked["files"], strict=True):
        os.dup2(file, name)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    if asked["ignores"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    if threads := os.environ.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    arguments: list[str] = asked["arguments"]
    if WORKER not in arguments:  # whose tests start from the interpreter itself
        sys.executable = stand_in()
        multiprocessing.set_executable(sys.executable)
    return arguments[next(i for i, word in enumerate(arguments) if word not in FLAGS) :]


def _run(arguments: list[str]) -> None:
    """Do what `python ARGUMENTS` does."""
    first, *rest = arguments
    safe = "PYTHONSAFEPATH" in os.environ
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if first == "-m":
        sys.path[:0] = [] if safe else [os.getcwd()]  # noqa: PTH109
        sys.argv = rest
        if not hasattr(sys.modules.get(rest[0]), "__path__"):  # a module that is run is not yet imported
            sys.modules.pop(rest[0], None)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[:0] = [] if safe else [""]
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(rest[0], main.__dict__)
    else:
        sys.path[:0] = [] if safe else [str(Path(first).parent)]
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


def _exit_at_once(code: object) -> None:
    """End as Python does, except that no object is taken apart: that would copy the server's memory."""
    threading._shutdown()
    atexit._run_exitfuncs()
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    del sys.path[0]  # this file's
    arguments = _take_place(*_serve(socket.socket(fileno=int(sys.argv[1]))))
    try:
        _run(arguments)
    except SystemExit as end:
        if RANK in arguments:  # how these end is what some tests are about
            raise
        _exit_at_once(end.code)
    _exit_at_once(0)
