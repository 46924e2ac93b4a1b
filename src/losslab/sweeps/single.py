"""One run in a process of its own, followed until it ends, for a caller in Python. No torch here."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import wait

from losslab.console import note
from losslab.errors import UserError
from losslab.records import Record
from losslab.reports import Cause, Note, Progress, from_line
from losslab.run_folder import RunFolder
from losslab.sweeps import server
from losslab.sweeps.display import Display
from losslab.sweeps.followed_run import Run, is_silent, known, last_words, put, written
from losslab.sweeps.interrupts import counting_signals
from losslab.sweeps.job import Surroundings, Task, train
from losslab.sweeps.processes import end_group, end_tree
from losslab.training.process.worker_command import HELD

_TICK = 0.2
_OWN_CODES = (0, 1, 2, HELD)


class Single:
    """A run that is trained, or continued, without a launcher: it shares no slots with others.

    Args:
        folder: planned, or of an earlier run.
        trust: classes outside losslab that it may import.
    """

    def __init__(self, folder: RunFolder, trust: list[str], *, label: str) -> None:
        record = known(folder)
        self._run = Run(
            number=1,
            label=label,
            folder=folder,
            width=1,
            max_steps=record.max_steps,
            trust=trust,
            status=record.status,
            step=record.step,
        )
        self._signals = 0

    def work(self, overrides: list[str] | None = None) -> Record:
        """Train until the run ends; returns its record.

        Args:
            overrides: KEY=VALUE as of `losslab resume`; None: the run as it was planned.

        Raises:
            UserError: for bad input, and where another process holds the run.
            KeyboardInterrupt: once the run has been saved, where a signal came.
        """
        run = self._run
        began, run.noted = time.monotonic(), written(run.folder)
        surroundings = Surroundings(dict(os.environ), os.getcwd())  # noqa: PTH109
        task = Task(run.folder.absolute(), run.trust, surroundings, began, overrides)
        with counting_signals(self._note_signal):
            code = self._follow(task)
        record = known(run.folder)
        if code not in (2, HELD) and is_silent(run.folder, record, run.noted):
            status = "interrupted" if self._signals else "failed"
            record = put(run.folder, record, status, run.stopped or run.error or last_words(code))
        if self._signals:
            raise KeyboardInterrupt
        if code in (2, HELD):
            raise UserError(run.error or record.error or last_words(code))
        return record

    def _follow(self, task: Task) -> int | None:
        """The exit code of the process that trains."""
        run = self._run
        process, run.events = server.follow(train, task, name=run.folder.name)
        run.process, run.status = process, "running"
        try:
            with Display([run]) as display:
                while process.exitcode is None:
                    wait([process.sentinel, *([run.events] if run.events is not None else [])], timeout=_TICK)
                    self._hear()
                    self._enforce()
                    display.refresh()
            self._hear()
        except BaseException:  # of the caller's own: the run does not stay behind unwatched
            self._stop("its caller ended")
            raise
        process.join()
        code: int | None = process.exitcode
        if code not in _OWN_CODES and process.pid is not None:
            end_group(process.pid)
        process.close()
        if run.events is not None:
            run.events.close()
        run.process = run.events = None
        return code

    def _hear(self) -> None:
        run = self._run
        if run.events is None:
            return
        try:
            while run.events.poll():
                report = from_line(run.events.recv())
                if isinstance(report, Progress):
                    run.step, run.text = report.step, report.text
                elif isinstance(report, Cause):
                    run.error = report.message
                elif isinstance(report, Note):
                    note(report.message)
        except (EOFError, OSError):
            run.events.close()
            run.events = None

    def _note_signal(self) -> None:
        self._signals += 1

    def _enforce(self) -> None:
        """The first signal lets the run save; the second ends it at once."""
        process = self._run.process
        if self._signals and not self._run.stopped:
            self._stop("stopped by a signal")
        if self._signals > 1 and not self._run.killed and process is not None and process.pid is not None:
            self._run.killed = True
            end_tree(process.pid)

    def _stop(self, reason: str) -> None:
        self._run.stopped = reason
        process = self._run.process
        if process is not None and process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
