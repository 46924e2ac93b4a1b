"""Work of a process that the launcher started: it makes a plan, or trains a run.

The launcher itself never needs torch; what does is imported in the process, where the fork server has it already.
"""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from losslab import console
from losslab.reports import Cause, Report, to_line
from losslab.run_folder import RunFolder
from losslab.sweeps.plan import Job

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Surroundings:
    """State that a process takes over from the one that started it; a server's is that of its own start."""

    environment: dict[str, str]
    folder: str
    """The current one."""

    def enter(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)


@dataclass(frozen=True)
class Task:
    """A run to train, out of its folder."""

    folder: RunFolder
    trust: list[str]
    surroundings: Surroundings
    began: float
    """The time at which the launcher started it, by time.monotonic()."""
    overrides: list[str] | None = None
    """KEY=VALUE as of `losslab resume`; None: the run as it was planned."""


def probe(answer: Connection) -> None:
    """Say that a process started, with all that a run imports."""
    from losslab.training.process import worker

    answer.send(worker.__name__)


def make_plan(jobs: list[Job], slots: int | None, here: bool, surroundings: Surroundings, answer: Connection) -> None:
    """Send the `Plan` of these jobs."""
    _enter_planning(surroundings)
    from losslab.sweeps.planning import plan

    with suppress(BrokenPipeError):  # it has ended meanwhile
        answer.send(plan(jobs, slots=slots, here=here))


def make_survey(
    studies: list[list[Job]], slots: int | None, runs: int, surroundings: Surroundings, answer: Connection
) -> None:
    """Send the `Survey` of a search."""
    _enter_planning(surroundings)
    from losslab.sweeps.planning import survey

    with suppress(BrokenPipeError):
        answer.send(survey(studies, slots=slots, runs=runs))


def plan_one(job: Job, number: int, threads: int, surroundings: Surroundings, answer: Connection) -> None:
    """Send the `Plan` of a run that a search has drawn."""
    _enter_planning(surroundings)
    from losslab.sweeps.planning import plan_one

    with suppress(BrokenPipeError):
        answer.send(plan_one(job, number=number, threads=threads))


def find_missing(jobs: list[Job], surroundings: Surroundings, answer: Connection) -> None:
    """Send which runs of these jobs are `Missing`."""
    _enter_planning(surroundings)
    from losslab.sweeps.planning import find_missing

    with suppress(BrokenPipeError):
        answer.send(find_missing(jobs))


def look_up(jobs: list[Job], since: str, surroundings: Surroundings, answer: Connection) -> None:
    """Send what the records say of these jobs."""
    _enter_planning(surroundings)
    from losslab.sweeps.planning import look_up

    with suppress(BrokenPipeError):
        answer.send(look_up(jobs, since))


def _enter_planning(surroundings: Surroundings) -> None:
    surroundings.enter()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the launcher's, which gets them too, and ends this
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(signal.SIGKILL,), daemon=True).start()


def train(task: Task, events: Connection) -> None:
    """Train a run; exit code: the worker's. Its reports go to `events`, a line each, and its output to its log."""
    _detach()
    task.surroundings.enter()
    _write_to(task.folder.log)
    console.out.quiet = True

    def send(report: Report) -> None:
        with suppress(OSError):  # nobody listens any more; the run ends soon
            events.send(to_line(report))

    console.listener = send
    if task.overrides is not None:
        sys.exit(_resume(task, task.overrides))
    from losslab.training.process import worker

    arguments = [str(task.folder.config_file), *(option for name in task.trust for option in ("--trust", name))]
    sys.exit(worker.main(arguments, began=task.began))


def _resume(task: Task, overrides: list[str]) -> int:
    """Continue a run as `losslab resume` does; exit codes are the worker's."""
    from losslab.errors import Held, UserError
    from losslab.training.process.start import resume
    from losslab.training.process.worker_command import HELD

    try:
        outcome = resume(task.folder, task.trust, overrides)
    except UserError as error:
        assert console.listener is not None
        console.listener(Cause(str(error)))
        return HELD if isinstance(error, Held) else 2
    return int(outcome.status in ("failed", "interrupted"))


def _detach() -> None:
    """The launcher passes a terminal's Ctrl-C on. Where it or the server dies, the run saves and ends."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):  # before and after training too the record says why it ended
        signal.signal(number, signal.default_int_handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # As in a single run: data workers are forks of this process, and need not import anything again.
        multiprocessing.set_start_method("fork", force=True)
    threading.Thread(target=_end_with_parent, args=(signal.SIGTERM,), daemon=True).start()


def _end_with_parent(number: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), number)


def _write_to(log: Path) -> None:
    """Write all output to a log, that of C libraries too, and the traceback of a crash."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        os.dup2(descriptor, number)
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
