"""The local launcher's work: start each run of a sweep in a slot, watch it, and say what became of it. No torch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from losslab.console import complain, note, say
from losslab.errors import UserError, error_sentence
from losslab.records import DONE, Record
from losslab.reports import Cause, Progress, Validated, from_line
from losslab.sweeps import server
from losslab.sweeps.display import Display
from losslab.sweeps.followed_run import Run, is_silent, known, last_words, put, tell, tell_end, written
from losslab.sweeps.interrupts import counting_signals
from losslab.sweeps.job import Surroundings, Task, train
from losslab.sweeps.processes import end_group, end_tree
from losslab.sweeps.settings import LocalSettings
from losslab.sweeps.slots import Slot, Slots, environment
from losslab.sweeps.source import OVER, Source
from losslab.training.process.worker_command import HELD

_OWN_CODES = (0, 1, 2, HELD)
_LOST = 255
"""multiprocessing's exit code where the server died, so that the end of the process is unknown."""
_TICK = 0.2
_LOOK_ELSEWHERE = 2.0
_GRACE = 60.0
"""Seconds that a run whose time is over has for saving."""


class Sweep:
    """The runs of one multirun on this machine, and those of them that other invocations train.

    Args:
        source: of runs, in the order in which they start; it is asked whenever a slot is free.
        folder: the sweep's.
        slots: the parts of the machine.
    """

    def __init__(self, source: Source, folder: Path, slots: tuple[Slot, ...], settings: LocalSettings) -> None:
        self.source = source
        self.runs: list[Run] = []
        """Those that have come."""
        self.settings = settings
        self._slots = Slots(folder, slots)
        self._waiting: list[Run] = []
        self._running: list[Run] = []
        self._signals = 0
        self._failed = False
        self._noted: set[str] = set()
        """Notes that a run has said."""

    def work(self) -> bool:
        """Train what is not done; returns whether a signal ended it before its end."""
        with self._handling_signals():
            self._take()
            with Display(self.runs, lambda: self.source.expected) as display:
                while self._running or not (self._is_over() or (self.source.is_spent and not self._waiting)):
                    if not self._is_over():
                        self._start_next()
                    self._listen()
                    self._catch_up()
                    self._enforce()
                    display.refresh()
        unfinished = any(run.status not in (*OVER, "skipped") for run in self.runs)
        return self._signals > 0 and (unfinished or not self.source.is_spent)

    def _is_over(self) -> bool:
        """Whether no further run starts."""
        return self._signals > 0 or (self._failed and self.settings.on_error == "stop")

    def _take(self) -> None:
        """Ask for further runs while a slot is free for one."""
        while self._slots.has_free() and all(run.elsewhere for run in self._waiting) and not self._is_over():
            if not (runs := self.source.next()):
                return
            self.runs += runs
            for run in runs:
                if run.status in OVER:
                    record = known(run.folder)
                    run.status, run.step = "skipped" if run.status in DONE else run.status, run.max_steps
                    self.source.ended(run, record)
                else:
                    run.status = "planned"
                    self._waiting.append(run)

    def _start_next(self) -> None:
        """Start the first run that nobody has, if there is room for it, and again."""
        self._take()
        for run in list(self._waiting):
            reason = self.source.unneeded(run)
            if run.elsewhere and not reason and not self._came_back(run):
                continue
            if reason or not (record := known(run.folder)).identity:
                self._waiting.remove(run)
                self._note_end(run, put(run.folder, known(run.folder), "pruned", reason) if reason else record)
                continue
            if run.folder.is_locked():
                self._leave_to_others(run)
                continue
            slots = self._slots.take(run.width)
            if not slots:
                return
            self._waiting.remove(run)
            self._start(run, slots)

    def _start(self, run: Run, slots: list[Slot]) -> None:
        run.began, run.noted = time.monotonic(), written(run.folder)
        surroundings = Surroundings(environment(slots), os.getcwd())  # noqa: PTH109
        task = Task(run.folder.absolute(), run.trust, surroundings, run.began)
        try:
            run.process, run.events = server.follow(train, task, name=run.folder.name)
        except (UserError, OSError) as error:  # no process or file could be had: this run fails, the others go on
            self._slots.free(slots)
            run.attempts = self.settings.retries + 1
            record = known(run.folder)
            record.status, record.error = (
                "failed",
                str(error) if isinstance(error, UserError) else error_sentence(error),
            )
            self._note_end(run, record)
            return
        run.slots, run.stopped, run.killed, run.pruned, run.error = slots, "", False, False, ""
        run.attempts += 1
        run.status = "running"
        self._running.append(run)
        self._tell(run, "continued" if run.step else "started")

    def _leave_to_others(self, run: Run) -> None:
        if not run.elsewhere:
            self._tell(run, "running in another process")
        run.elsewhere, run.looked = True, time.monotonic()

    def _came_back(self, run: Run) -> bool:
        """Whether a run that another process had is free again, and not done."""
        if time.monotonic() - run.looked < _LOOK_ELSEWHERE:
            return False
        run.looked = time.monotonic()
        record = known(run.folder)
        run.step = record.step
        if run.folder.is_locked():
            return False
        run.elsewhere = False
        if record.status in (*OVER, "failed"):
            self._waiting.remove(run)
            self._note_end(run, record)
            return False
        return True

    def _listen(self) -> None:
        """Take in what the runs say, and their ends, for at most a tick."""
        sources: dict[Any, Run] = {}
        for run in self._running:
            assert run.process is not None
            sources[run.process.sentinel] = run
            if run.events is not None:
                sources[run.events] = run
        if not sources:
            time.sleep(_TICK)
            return
        ready = wait(list(sources), timeout=_TICK)
        for source in ready:
            if isinstance(source, Connection):
                self._hear(sources[source])
        for source in ready:
            if not isinstance(source, Connection):
                self._collect(sources[source])

    def _hear(self, run: Run) -> None:
        assert run.events is not None
        try:
            while run.events.poll():
                report = from_line(run.events.recv())
                run.heard = time.monotonic()
                if isinstance(report, Progress):
                    run.step, run.text = report.step, report.text
                elif isinstance(report, Cause):
                    run.error = report.message
                elif isinstance(report, Validated):
                    self._prune(run, self.source.validated(run, report.step, report.value))
                elif report is not None and report.message not in self._noted:
                    # Runs of one text have the same to say of it; each has it in its log.
                    self._noted.add(report.message)
                    note(f"[{run.number}/{self.source.expected}] {report.message}")
        except (EOFError, OSError):
            run.events.close()
            run.events = None

    def _prune(self, run: Run, reason: str) -> None:
        """End a run for which there is a reason that it need not go on."""
        if reason and not run.stopped:
            run.pruned = True
            self._stop(run, reason)

    def _collect(self, run: Run) -> None:
        """Note how a process ended, and free its slots."""
        assert run.process is not None
        if run.events is not None:
            self._hear(run)
        run.process.join()
        code = run.process.exitcode
        if code == _LOST and run.folder.is_locked():
            time.sleep(_TICK)
            return  # it saves, now that the server has died
        if code not in _OWN_CODES and run.process.pid is not None:
            end_group(run.process.pid)  # what it had started, such as data workers, does not see its end
        run.process.close()
        if run.events is not None:
            run.events.close()
        run.process = run.events = None
        self._running.remove(run)
        self._slots.free(run.slots)
        if code == HELD and run.error:  # it said so; a code of a person's own may be the same number
            run.attempts -= 1
            run.status = "planned"
            self._waiting.append(run)
            self._leave_to_others(run)
            return
        self._note_end(run, self._settle(run, code))

    def _settle(self, run: Run, code: int | None) -> Record:
        """The run's record after its process ended, completed by what the process could not write itself."""
        record = known(run.folder)
        if run.pruned and record.status not in DONE:  # planned still, where it was ended in its first moments
            return put(run.folder, record, "pruned", run.stopped)
        overdue = run.stopped and not self._signals and record.status == "interrupted"
        if not (overdue or is_silent(run.folder, record, run.noted)):
            return record
        status = "interrupted" if run.stopped and self._signals else "failed"
        return put(run.folder, record, status, run.stopped or run.error or last_words(code))

    def _note_end(self, run: Run, record: Record) -> None:
        tell_end(run, self.source.expected, record)
        if run.status == "failed":
            if 0 < run.attempts <= self.settings.retries and not run.stopped and not self._is_over():
                again = f"will be tried again ({run.attempts} of {self.settings.retries})"
                say(f"[{run.number}/{self.source.expected}] {again}")
                run.status = "planned"
                # Whether the sweep goes on depends on it, or all others come first.
                self._waiting.insert(0 if self.settings.on_error == "stop" else len(self._waiting), run)
                return
            if not self._failed and self.settings.on_error == "stop" and (self._waiting or self._running):
                complain("no further run starts: hydra.launcher.on_error=stop")
            self._failed = True
        self.source.ended(run, record)

    def _tell(self, run: Run, event: str, rest: str = "") -> None:
        tell(run, self.source.expected, event, rest)

    def _catch_up(self) -> None:
        """Runs that report no progress, as trainer.enable_progress_bar=false asks, leave their step in their record."""
        for run in self._running:
            if time.monotonic() - run.heard > _LOOK_ELSEWHERE:
                run.heard = time.monotonic()
                run.step = max(run.step, known(run.folder).step)

    def _enforce(self) -> None:
        """Time limits, and signals that came in."""
        now = time.monotonic()
        limit = self.settings.time_limit
        for run in self._running:
            self._prune(run, self.source.unneeded(run))
            if self._signals and not run.stopped:
                self._stop(run, "stopped by a signal")
            if limit is not None and not run.stopped and now - run.began > limit:
                self._stop(run, f"stopped after hydra.launcher.time_limit={limit:g} s")
            overdue = limit is not None and now - run.began > limit + _GRACE
            if (self._signals > 1 or overdue) and not run.killed:
                run.killed = True
                assert run.process is not None and run.process.pid is not None
                end_tree(run.process.pid)

    def _stop(self, run: Run, reason: str) -> None:
        run.stopped = reason
        assert run.process is not None and run.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(run.process.pid, signal.SIGTERM)

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        """The first Ctrl-C lets the runs save, the second ends them at once; SIGTERM and a closed terminal likewise."""
        with counting_signals(self._note_signal):
            try:
                yield
            except BaseException:  # of our own: no run stays behind unwatched
                for run in self._running:
                    self._stop(run, "the launcher failed")
                raise

    def _note_signal(self) -> None:
        self._signals += 1
