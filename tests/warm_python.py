"""Python as the tests' `sys.executable`: losslab's own processes begin as forks of one that has torch in memory.

A fork takes this process's place: it has its arguments, environment, folder, open files, group and blocked signals.
This process stays, passes signals on, and ends as the fork does; when it is killed, so is the fork. Whatever else it
is asked for, it hands to Python itself. It is run isolated and without site-packages, in a hundredth of a second.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys

SERVER = "LOSSLAB_TESTS_SERVER"
"""The socket of tests/warm_process.py; nothing is forked where this is not set."""
MODULES = {
    "losslab",
    "losslab.training.process.worker",
    "torch.distributed.run",
    "submitit.core._submit",
    "ipykernel_launcher",
    "joblib.externals.loky.backend.popen_loky_posix",
}
WORKER = "import sys;exec(eval(sys.stdin.readline()))"
"""A worker of pytest, as execnet starts it."""
PROGRAMS = (
    WORKER,
    "from multiprocessing.forkserver import main; ",
    "from multiprocessing.spawn import spawn_main; ",
    "import sys; from losslab.cli import main; ",
    "import sys, torch, losslab\n",
    "import cloudpickle, pickle, sys\n",
)
SCRIPTS = ("rank_weights.py", "stopped_runs.py", "continued_runs.py", "gpu_check.py", "kill_many.py")
FLAGS = {"-u", "-B"}
_SAME = ("PYTHON", "LD_", "MALLOC_", "KMP_", "TORCH_LOGS", "TRITON_")
"""Beginnings of the names of variables that Python and libraries read while they start."""
_ANY = {
    "PYTHON",
    "PYTHONPATH",
    "PYTHONSAFEPATH",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "KMP_INIT_AT_FORK",
}
"""Those of them that a fork follows, or that are about libraries which no fork has open."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def stand_in() -> str:
    """The path of this program, as `warm_process.install` has written it."""
    return f"{os.path.dirname(os.environ[SERVER])}/python"  # noqa: PTH120


def strict(environment: dict[str, str]) -> dict[str, str]:
    """The variables that must be as in the process that is forked."""
    return {name: text for name, text in environment.items() if name.startswith(_SAME) and name not in _ANY}


def can_fork(arguments: list[str], source: str) -> bool:
    """Whether the command is one of losslab's, in the environment and with the packages of the server.

    Args:
        source: the folder from which the server imports losslab.
    """
    if strict(dict(os.environ)) or any(
        os.path.isdir(f"{folder}/{package}")  # noqa: PTH112
        for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        for package in ("torch", "lightning", "losslab")
        if folder and os.path.realpath(folder) != source and not folder.endswith("site-packages")
    ):
        return False
    rest = list(arguments)
    while rest and rest[0] in FLAGS:
        rest.pop(0)
    if len(rest) > 1 and rest[0] in ("-m", "-c"):
        return rest[1] in MODULES if rest[0] == "-m" else rest[1].startswith(PROGRAMS)
    return bool(rest) and rest[0].endswith(SCRIPTS)


def request(arguments: list[str], *, fields: dict[str, object], files: dict[int, int]) -> socket.socket:
    """Ask for a fork; what comes back are its pid and then its exit code.

    Args:
        fields: environment, folder and group.
        files: descriptor there → descriptor here.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(os.environ[SERVER])
    message = json.dumps({"arguments": arguments, "files": list(files), **fields}).encode()
    connection.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files.values()))])
    return connection


def main(arguments: list[str]) -> None:
    """Have the command run by a fork, and end as it does."""
    files = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    files = [file for file in files if _is_open(file)]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    process = os.getpid()
    group = "session" if os.getsid(0) == process else "group" if os.getpgrp() == process else ""
    fields: dict[str, object] = {
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "group": group,
        "blocked": [int(number) for number in blocked],
        "ignores": ignores,
        "stands_in": True,
    }
    connection = request(arguments, fields=fields, files={file: file for file in files})
    for file in files:
        os.close(file)
    pid = int(connection.recv(32))
    for number in _SIGNALS[ignores:]:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    code = int(connection.recv(32) or -signal.SIGKILL)
    if code < 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(process, -code)
    os._exit(code)


def _is_open(file: int) -> bool:
    try:
        os.fstat(file)
    except OSError:  # that of the listing
        return False
    return True


def _start(python: str, source: str) -> None:
    """Run the command that was typed after the name of this program."""
    arguments = sys.argv[1:]
    if SERVER in os.environ and can_fork(arguments, source):
        main(arguments)
    else:
        os.execv(python, [python, *arguments])
