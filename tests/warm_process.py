"""losslab's processes, forked from one that has torch and Lightning in memory: they take 4 s of CPU to import.

Everything else is as in a process that was just started: its own pid, environment, folder, group, arguments, output,
signals and exit code. tests/warm_server.py is the process that is forked; one serves all workers of pytest.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import losslab
import warm_python
from warm_python import SERVER, stand_in

PYTHON = sys.executable
"""The interpreter itself, for a test of a command's first seconds, or of what it imports."""
SOURCE = str(Path(losslab.__file__).resolve().parents[1])
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
"""NumPy's library opens its threads while it is imported."""


class WarmProcess:
    """Members of Popen that the tests use, with both outputs in one pipe, as text."""

    def __init__(self, arguments: list[str], *, cwd: Path, group: bool) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._chunks: list[bytes] = []
        output, their_output = os.pipe()
        fields: dict[str, object] = {
            "environment": dict(os.environ),
            "folder": str(cwd),
            "group": "group" if group else "",
            "blocked": [],
            "ignores": False,
            "stands_in": False,
        }
        with open(os.devnull) as nothing:  # noqa: PTH123
            files = {0: nothing.fileno(), 1: their_output, 2: their_output}
            self._status = warm_python.request(["-m", "losslab", *arguments], fields=fields, files=files)
        os.close(their_output)
        self._output: int | None = output
        self.pid = int(self._status.recv(32))

    def poll(self) -> int | None:
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._status.recv(32))
            self._status.close()
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


@contextmanager
def starting_cold() -> Iterator[None]:
    """Processes that start in here import everything, and so do theirs."""
    executable = sys.executable
    with patch.dict(os.environ), patch.object(sys, "executable", PYTHON):
        os.environ.pop(SERVER, None)
        multiprocessing.set_executable(PYTHON)
        try:
            yield
        finally:
            multiprocessing.set_executable(executable)


def can_fork() -> bool:
    """Whether `WarmProcess` starts a command as a new process of Python would."""
    return SERVER in os.environ and warm_python.can_fork(["-m", "losslab"], SOURCE)


def install() -> None:
    """Let this process, and all below it, start losslab's processes as forks; pytest's workers find it done."""
    if sys.platform != "linux" or warm_python.strict(dict(os.environ)):
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that spin, waiting for another, take the cores from other tests
    if SERVER not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="losslab-tests-"))
        os.environ[SERVER] = str(folder / "socket")
        source = Path(warm_python.__file__).read_text(encoding="utf-8")
        Path(stand_in()).write_text(f"#!{PYTHON} -IS\n{source}\n\n_start({PYTHON!r}, {SOURCE!r})\n", encoding="utf-8")
        Path(stand_in()).chmod(0o755)
        if not os.access(stand_in(), os.X_OK) or " " in PYTHON or len(PYTHON) > 100 or len(os.environ[SERVER]) > 100:
            del os.environ[SERVER]  # no program may lie there, or a path is too long for the kernel
            return shutil.rmtree(folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(os.environ[SERVER])
        listener.listen(100)
        warm_server = Path(__file__).with_name("warm_server.py")
        server = subprocess.Popen(
            [PYTHON, warm_server, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env={name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | _ONE_THREAD,
            stdin=subprocess.DEVNULL,
        )
        atexit.register(_end, server, folder)
        listener.close()
    sys.executable = stand_in()
    multiprocessing.set_executable(sys.executable)


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.terminate()
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)


def forks() -> dict[int, int]:
    """The process that stands in for a fork → the fork."""
    found = {}
    for path in Path(os.environ[SERVER]).parent.glob("*.pid") if SERVER in os.environ else ():
        with suppress(OSError, ValueError):
            found[int(path.stem)] = int(path.read_text())
    return found
