"""The fork server: one thread, so that what it forks can compute with many; and a sentence where it cannot begin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from losslab.sweeps import server
from losslab.training.process.allocator import allocator_environment
from runs import TINY
from warm_process import starting_cold

SECONDS = 60
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="there is a fork server on Linux only")


@pytest.fixture(scope="module", autouse=True)
def _cold() -> Iterator[None]:
    """The server is the subject here: it is not to be a fork itself."""
    with starting_cold():
        yield


def multiply(answer: Connection) -> None:
    """Work of a run's first step."""
    loaded = "lightning" in sys.modules
    import torch

    torch.set_num_threads(2)
    matrix = torch.ones(1500, 1500)
    answer.send({"loaded": loaded, "threads": torch.get_num_threads(), "corner": float((matrix @ matrix)[-1, -1])})


def tell(answer: Connection, value: object) -> None:
    answer.send(value)


def ask(target: Any, *arguments: object) -> Any:
    """The answer of a process from the server, within SECONDS."""
    receiving, sending = server.context.Pipe(duplex=False)
    process: BaseProcess = server.start(target, sending, *arguments, name="test")
    sending.close()
    try:
        assert receiving.poll(SECONDS), "it computes for ever"
        return receiving.recv()
    finally:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def server_pid() -> int:
    """The id of a server that has started a process, after all its imports."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # one that an earlier test left, started otherwise
    assert ask(tell, "hello") == "hello"
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    assert isinstance(pid, int)
    return pid


@on_linux
def test_the_server_has_one_thread_and_everything_in_memory(server_pid: int) -> None:
    assert len(list(Path(f"/proc/{server_pid}/task").iterdir())) == 1
    libraries = Path(f"/proc/{server_pid}/maps").read_text()
    assert "libtorch_cpu" in libraries


@on_linux
def test_the_server_begins_with_variables_of_its_libraries(server_pid: int) -> None:
    variables = Path(f"/proc/{server_pid}/environ").read_bytes().split(b"\0")
    assert {b"OMP_NUM_THREADS=1", b"MKL_NUM_THREADS=1", b"OPENBLAS_NUM_THREADS=1"} <= set(variables)
    own = [
        f"{name}={value}".encode().split(b":") for name, value in allocator_environment().items()
    ]  # as glibc cuts it
    assert {part for parts in own for part in parts} <= set(variables)


def test_a_process_computes_with_many_threads() -> None:
    answer = ask(multiply)
    assert answer == {"loaded": sys.platform == "linux", "threads": 2, "corner": 1500.0}


@pytest.mark.parametrize("path", [None, "/somewhere"])
def test_the_environment_of_the_command_stays_as_it_is(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    before = dict(os.environ)
    server.warm_up()
    assert dict(os.environ) == before


@on_linux
def test_a_server_that_was_killed_is_started_again(server_pid: int) -> None:
    os.kill(server_pid, signal.SIGKILL)
    os.waitid(os.P_PID, server_pid, os.WEXITED | os.WNOWAIT)
    assert ask(tell, 1) == 1
    assert forkserver._forkserver._forkserver_pid != server_pid  # type: ignore[attr-defined]


def test_a_package_that_cannot_be_imported_ends_the_command_in_a_sentence(workplace: Path) -> None:
    (workplace / "broken/lightning").mkdir(parents=True)
    (workplace / "broken/lightning/__init__.py").write_text('raise ImportError("half installed")\n')
    path = os.pathsep.join([str(workplace / "broken"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "losslab", "train", "-m", *TINY, "seed=1,2"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2
    assert "losslab cannot be imported: half installed" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("losslab: no process for a run could be started (") and last.endswith("); see above")
    assert done.stderr.count("losslab: ") == 1
    assert not list(workplace.glob("outputs/runs/*/run.json"))


@on_linux
def test_a_server_that_nobody_will_ask_ends_amid_its_imports() -> None:
    import_and_leave = (
        "import os; from multiprocessing import forkserver; from losslab.sweeps import server; server.end_early(); "
        "server.warm_up(); server.end_early(); server.end_early(); "
        "print(os.waitstatus_to_exitcode(os.waitpid(forkserver._forkserver._forkserver_pid, 0)[1]))"
    )
    ended = subprocess.run([sys.executable, "-c", import_and_leave], capture_output=True, text=True, check=True)
    assert int(ended.stdout) == -signal.SIGKILL
