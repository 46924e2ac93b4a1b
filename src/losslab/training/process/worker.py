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
from losslab.run_folder import RunFolder
from losslab.training.process.dispatch import launch
from losslab.training.process.slurm import become_rank
from losslab.training.process.torchrun import CAUSE, QUIET
from losslab.training.process.worker_command import PARENT_PIPE

HELD = 3
"""Exit code: another process has the run."""
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
    try:
        become_rank()
        run = RunFolder(parsed.config.parent)
        run.refuse_links()
        config = open_config(run.config(), parsed.trust, run.config_file)
        record = run.record()
        if record.status not in DONE:
            record = launch(run, config, began=began)
    except Held as error:
        _tell(str(error))
        return HELD
    except UserError as error:
        _tell(str(error))
        return 2
    unheard = console.listener is None  # who listens reads the record
    stopped = record.status == "interrupted" and "RANK" in os.environ  # said, so that torchrun's words go to the log
    if stopped or (record.status == "failed" and unheard):
        _tell(str(record.error))
    return int(record.status not in DONE)


def _stop_with_parent() -> None:
    """Save and end, as after a signal, when the process that started the ranks was killed; nobody else could.

    Reads the descriptor itself: a daemon thread that holds the lock of `sys.stdin` at exit aborts the interpreter.
    """
    with suppress(OSError):
        while os.read(_STDIN, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _tell(cause: str) -> None:
    """Send the end of this rank to the parent, which passes on the first: under torchrun each rank does."""
    if "RANK" in os.environ:
        sys.stderr.write(f"{CAUSE}{os.environ['RANK']}: {cause}\n")
    else:
        complain(cause)


if __name__ == "__main__":
    sys.exit(main())
