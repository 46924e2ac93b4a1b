"""Start one process a device through torchrun, and stand by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from losslab.records import CONFIG
from losslab.training.messages import LOG


def run_workers(folder: Path, ranks: int, trust: list[str]) -> tuple[int, bool]:
    """Run losslab.training.worker on every rank; returns torchrun's exit code, and whether a signal came.

    SIGINT and SIGTERM go on to torchrun, and from it to the workers, which save before they end.

    Args:
        trust: the classes outside losslab that the person typed, which the workers may import.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", "losslab.training.worker", str(folder / CONFIG)]
    for name in trust:
        command += ["--trust", name]
    # The workers find a person's own classes where this process did.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment["PYTHONSAFEPATH"] = "1"  # and nowhere else: -m would put the current folder first
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    # A session of its own: a terminal's Ctrl-C reaches the workers once, through us.
    started = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    with started as agent:
        return _stand_by(agent, folder / LOG)


def _stand_by(agent: subprocess.Popen[str], log: Path) -> tuple[int, bool]:
    """Wait for the workers, and pass signals on."""
    signalled = threading.Event()

    def pass_on(number: int, _: object) -> None:
        signalled.set()
        agent.send_signal(number)

    handlers = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert agent.stderr is not None
        _relay(agent.stderr, log, signalled)
        return agent.wait(), signalled.is_set()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _relay(stream: IO[str], log: Path, signalled: threading.Event) -> None:
    """Pass the workers' messages through; torchrun's traceback of a signal that we sent goes to the log."""
    for line in stream:
        if signalled.is_set():
            with log.open("a", encoding="utf-8") as file:
                file.write(line)
        else:
            sys.stderr.write(line)
