"""Start one process a device through torchrun, and stand by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from losslab import console
from losslab.reports import Cause, Note, from_line
from losslab.run_folder import RunFolder
from losslab.training.process.signals import handling
from losslab.training.process.worker_command import worker_command, worker_environment

QUIET = "LOSSLAB_QUIET"
"""Set where nobody reads what a rank prints; it stands in its log."""
_STDERR = 2
"""The only descriptor for reports that torchrun hands down to the ranks."""


@dataclass
class Ended:
    """The end of the ranks."""

    code: int = 0
    """torchrun's exit code."""
    signalled: bool = False
    """A signal came in."""
    cause: str | None = None
    """The message of the first rank to fail; the others fail because it did."""


def run_workers(run: RunFolder, ranks: int, trust: list[str]) -> Ended:
    """Run losslab.training.process.worker on every rank, and wait for their end.

    The first SIGINT or SIGTERM lets the workers save, however long that takes them; the second ends them.

    Args:
        trust: the classes outside losslab that the person typed, which the workers may import.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += worker_command(run, trust)
    environment = worker_environment(sys.path, reports=_STDERR)
    if console.out.quiet:
        environment[QUIET] = "1"
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    # A session of its own: a terminal's Ctrl-C reaches the workers once, through us.
    # Nothing is written to its input, which the workers inherit: its end shows them that this process has ended.
    started = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started as agent:
        return _stand_by(agent, run.log)


def _stand_by(agent: subprocess.Popen[str], log: Path) -> Ended:
    """Wait for the workers, and pass signals on."""
    ended = Ended()

    def pass_on(number: int, _: object) -> None:
        if ended.signalled:
            agent.terminate()  # which kills what has not ended 30 seconds later
        ended.signalled = True
        assert agent.stdin is not None
        agent.stdin.close()  # the end of their input is a SIGTERM to all workers

    with handling({signal.SIGINT: pass_on, signal.SIGTERM: pass_on}):
        assert agent.stderr is not None
        _relay(agent.stderr, log, ended)
        ended.code = agent.wait()
        return ended


def _relay(stream: IO[str], log: Path, ended: Ended) -> None:
    """Take in the ranks' reports, and pass the rest through; torchrun's messages on a signal that we sent, and on a
    rank that has reported its end itself, go to the log."""
    for line in stream:
        report = from_line(line)
        if isinstance(report, Cause):
            whose = f"rank {report.rank}: "
            ended.cause = ended.cause or (whose if report.rank else "") + report.message
            line = f"losslab: {whose}{report.message}\n"
        elif isinstance(report, Note):
            console.note(report.message)
            continue
        elif report is not None:
            if console.listener is not None:
                console.listener(report)
            continue
        if ended.signalled or ended.cause:
            with log.open("a", encoding="utf-8") as file:
                file.write(line)
        else:
            sys.stderr.write(line)
