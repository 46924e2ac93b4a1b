"""Forks that stand in for processes of Python: what a test sees of them is what it would see of a new process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sklearn  # noqa: F401  # it sets variables that new processes read, in whatever test file imports it

import warm_process
from warm_process import PYTHON, forks, starting_cold

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux only")
TELLS = """
import json, os, signal, sys
print(json.dumps({
    "arguments": sys.argv[1:],
    "name": __name__,
    "folder": os.getcwd(),
    "path": sys.path[:2],
    "variable": os.environ.get("GIVEN"),
    "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "ignores": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "open": [os.path.exists(f"/proc/self/fd/{file}") for file in range(3)],
    "passed": os.read(int(sys.argv[1]), 9).decode(),
    "typed": sys.stdin.read(),
    "loaded": "lightning" in sys.modules,
}))
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A file with the name of one that is started as a fork."""
    return str(tmp_path / "rank_weights.py")


def test_packages_that_test_files_import_leave_commands_forkable() -> None:
    assert warm_process.can_fork()


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="for the workers of pytest -n")
def test_a_worker_of_pytest_is_a_fork() -> None:
    assert Path(sys.orig_argv[1]).name == "warm_server.py" and sys.executable == warm_process.stand_in()
    assert sys.executable != PYTHON


@pytest.mark.parametrize("session", [False, True])
def test_a_fork_is_as_a_new_process(script: str, session: bool) -> None:
    Path(script).write_text(TELLS)
    reading, writing = os.pipe()

    def start(python: str) -> tuple[int, dict[str, object]]:
        os.write(writing, b"2 x hello")
        ended = subprocess.run(
            [python, script, str(reading), "7"],
            input="typed",
            env=os.environ | {"GIVEN": "é", "PYTHONPATH": "/somewhere"},
            cwd=Path(script).parent,
            pass_fds=[reading],
            start_new_session=session,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        return ended.returncode, json.loads(ended.stdout)

    code, fork = start(sys.executable)
    assert fork.pop("loaded") is True
    new_code, new = start(PYTHON)
    assert new.pop("loaded") is False
    assert (code, fork) == (new_code, new)
    assert code == 7 and fork["leads"] == [session, session]
    os.close(reading)
    os.close(writing)


def test_signals_reach_the_fork_and_its_end_is_that_of_the_process(script: str) -> None:
    Path(script).write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR2, lambda *_: print('told', flush=True))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR2)
        assert process.stdout.readline() == "told\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM


def _fork_of(pid: int) -> int:
    """The fork that a process stands for, which the server notes only after it has begun to work."""
    until = time.monotonic() + 10
    while pid not in forks() and time.monotonic() < until:
        time.sleep(0.01)
    return forks()[pid]


def test_a_killed_process_takes_its_fork_with_it(script: str) -> None:
    Path(script).write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        fork = _fork_of(process.pid)
        os.kill(fork, 0)
        process.kill()
        assert process.stdout.read() == ""  # whoever has it open has ended


@pytest.mark.parametrize("how", ["another program", "another losslab", "another torch", "cold"])
def test_whatever_is_no_process_of_ours_is_a_new_one(script: str, tmp_path: Path, how: str) -> None:
    Path(script).write_text("import sys\nprint('lightning' in sys.modules, sys.executable)\n")
    program, environment = script, dict(os.environ)
    if how == "another program":
        program = str(Path(script).rename(tmp_path / "mine.py"))
    if how.removeprefix("another ") in ("losslab", "torch"):
        (tmp_path / how.split()[1]).mkdir()
        environment["PYTHONPATH"] = str(tmp_path)
    if how == "cold":
        with starting_cold():
            assert not warm_process.can_fork()
            environment = dict(os.environ)
    ended = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
    assert ended.stdout == f"False {PYTHON}\n", ended.stderr
