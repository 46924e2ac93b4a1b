"""`python -m losslab`, forked from a process that has torch and Lightning in memory: they take 3.6 s of CPU to import.

Everything else is as in a process that was just started: its own pid, environment, folder, group, arguments, output,
signals and exit code. Run as a script, this file is the process that is forked; it computes nothing, so that it holds
no threads that its children would lack.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
"""NumPy's library opens its threads while it is imported."""
_CHANGES_NOTHING = {"PYTEST_CURRENT_TEST", *_ONE_THREAD}


class WarmProcess:
    """Members of Popen that the tests use, with both outputs in one pipe, as text."""

    def __init__(self, arguments: list[str], *, cwd: Path, group: bool) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._chunks: list[bytes] = []
        output, their_output = os.pipe()
        self._status, their_status = os.pipe()
        request = json.dumps([arguments, str(cwd), group, dict(os.environ)]).encode()
        socket.send_fds(_server(), [request], [their_output, their_status])
        os.close(their_output)
        os.close(their_status)
        self._output: int | None = output
        self.pid = int(os.read(self._status, 32))

    def poll(self) -> int | None:
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(os.read(self._status, 32))
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._output is not None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._output], [], [], left)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            if chunk := os.read(self._output, 1 << 16):
                self._chunks.append(chunk)
            else:
                os.close(self._output)
                self._output = None
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return b"".join(self._chunks).decode().replace("\r\n", "\n").replace("\r", "\n"), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def can_start() -> bool:
    """Whether the environment is the one in which the server has imported everything."""
    return sys.platform == "linux" and _relevant(dict(os.environ)) == _relevant(_at_start())


def _relevant(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _CHANGES_NOTHING}


@functools.cache
def _at_start() -> dict[str, str]:
    return dict(os.environ)


@functools.cache
def _server() -> socket.socket:
    """The socket of a process of this file, which ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=os.environ | _ONE_THREAD,
        stdin=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> list[str]:
    """Fork for each request; returns its arguments in the process that is to run them."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the processes between ended
    while True:
        message, (*descriptors,), _, _ = socket.recv_fds(requests, 1 << 20, 2)
        if not message:
            sys.exit()
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _fork(message, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _fork(message: bytes, output: int, status: int) -> list[str]:
    """Stay as the parent that tells the child's pid and how it ended; returns in the child alone."""
    pid = os.fork()
    if pid:
        os.close(output)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.write(status, f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, str(code).encode())
        os._exit(0)
    os.close(status)
    arguments, cwd, group, environment = json.loads(message)
    if group:
        os.setpgid(0, 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    return list(arguments)


if __name__ == "__main__":
    import losslab.cli
    import losslab.commands.train
    import losslab.sweeps.job
    import losslab.sweeps.planning
    import losslab.training.process.worker  # noqa: F401

    gc.freeze()  # a child's collections would copy all of it
    sys.argv[1:] = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.path[0] = os.getcwd()  # noqa: PTH109  # instead of this file's, as -m has it
    runpy.run_module("losslab", run_name="__main__", alter_sys=True)
