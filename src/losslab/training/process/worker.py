"""The entry of every job that has a process of its own: python -m losslab.training.process.worker RUN/config.yaml."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from losslab import console
from losslab.config.stored import open_config
from losslab.console import complain
from losslab.errors import Held, UserError
from losslab.records import DONE
from losslab.reports import Cause, Report, to_line
from losslab.run_folder import RunFolder
from losslab.training.process.dispatch import launch
from losslab.training.process.slurm import become_rank
from losslab.training.process.torchrun import QUIET
from losslab.training.process.worker_command import HELD, PARENT_PIPE, REPORTS

_STDIN = 0
"""The descriptor."""


def main(arguments: list[str] | None = None, *, began: float | None = None) -> int:
    """Exit code 0 for a result (completed, diverged), 1 for a failed or interrupted run, 2 for bad input, 3 for a run
    that another process holds.

    Args:
        began: when this process started, by time.monotonic().
    """
    parser = argparse.ArgumentParser(prog="losslab.training.process.worker", description=__doc__)
    parser.add_argument("config", type=Path, help="config.yaml in a run's folder")
    parser.add_argument("--trust", action="append", default=[], help="a class outside losslab that may be imported")
    parsed = parser.parse_args(arguments)
    if QUIET in os.environ:
        console.out.quiet = True
    if PARENT_PIPE in os.environ:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    if REPORTS in os.environ:
        console.listener = _report
    try:
        become_rank()
        run = RunFolder(parsed.config.parent)
        run.refuse_links()
        config = open_config(run.config(), parsed.trust, run.config_file)
        record = run.record()
        if record.status not in DONE:
            record = launch(run, config, began=began)
    except Held as error:
        _say_why(str(error))
        return HELD
    except UserError as error:
        _say_why(str(error))
        return 2
    if record.status in ("failed", "interrupted"):
        _say_why(str(record.error))
    return int(record.status not in DONE)


def _stop_with_parent() -> None:
    """Save and end, as after a signal, when the process that started the ranks was killed; nobody else could.

    Reads the descriptor itself: a daemon thread that holds the lock of `sys.stdin` at exit aborts the interpreter.
    """
    with suppress(OSError):
        while os.read(_STDIN, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _report(report: Report) -> None:
    """Write a report to the process that started this one; ranks beyond 0 report the cause of their end only."""
    if isinstance(report, Cause) or os.environ.get("RANK", "0") == "0":
        with suppress(OSError):  # the reader has ended; this process ends soon
            os.write(int(os.environ[REPORTS]), f"{to_line(report)}\n".encode())


def _say_why(cause: str) -> None:
    """Report why this process ends; the one that started the ranks passes on the first of theirs."""
    rank = int(os.environ.get("RANK", 0))
    if console.listener is not None:
        console.listener(Cause(cause, rank))
    elif "RANK" in os.environ:  # somebody else's torchrun, or srun
        sys.stderr.write(f"losslab: rank {rank}: {cause}\n")
    else:
        complain(cause)


if __name__ == "__main__":
    sys.exit(main())
