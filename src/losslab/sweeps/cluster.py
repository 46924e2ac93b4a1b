"""The work of hydra/launcher=slurm: submit what is not done, watch it, and say what became of it. No torch here."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from losslab.console import note
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.records import DONE
from losslab.run_folder import RunFolder
from losslab.sweeps.display import Display
from losslab.sweeps.followed_run import UNENDED, Run, known, put, tell, tell_end
from losslab.sweeps.interrupts import counting_signals
from losslab.sweeps.scheduler import Shape, make_scheduler
from losslab.sweeps.settings import SlurmSettings
from losslab.sweeps.submitted import SubmittedRun

SUBMITTED = "submitted"
"""The status of a run that a cluster has and this command does not wait for."""
_TICK = 0.2
_LONGEST_PAUSE = 15.0
"""Seconds between two questions to the cluster, once a sweep has gone on for a while."""
_SETTLED = 2
"""A job must be missing from so many answers in a row: the queue, and a shared disk, are a little behind."""


class Cluster:
    """The runs of one multirun on a cluster, or in submitit's processes here.

    Args:
        runs: in the order in which they are submitted.
        shapes: what each run's job needs, by the run's number.
        folder: the sweep's.
    """

    def __init__(self, runs: list[Run], shapes: dict[int, Shape], folder: Path, settings: SlurmSettings) -> None:
        self.runs = runs
        self.settings = settings
        self._shapes = shapes
        self._folder = folder
        self._scheduler = make_scheduler(folder, settings)
        self._waiting = [run for run in runs if run.status not in DONE]
        self._watched: list[Run] = []
        self._jobs: dict[int, str] = {}
        """Ids of jobs by the run's number."""
        self._missing: dict[int, int] = defaultdict(int)
        """The number of answers in a row that lacked a run's job, by the run's number."""
        self._signals = 0
        self._began = time.monotonic()

    def work(self) -> bool:
        """Submit what is not done, and stay until it is; returns whether a signal ended this before."""
        for run in self.runs:
            if run.status in DONE:
                run.status, run.step = "skipped", run.max_steps
        with counting_signals(self._note_signal), Display(self.runs) as display:
            while self._is_going_on():
                if self._waiting and self._scheduler.room > 0 and not self._signals:
                    self._submit(self._waiting[: self._scheduler.room])
                if self.settings.wait and self._watched:
                    self._pause(display)
                    self._look()
        for run in self._watched:
            run.status = SUBMITTED
        return self._signals > 0

    def parting(self) -> str:
        """A sentence that says what to do once a signal has ended this."""
        jobs = {self._jobs[run.number].partition("_")[0] for run in self._watched if run.number in self._jobs}
        if self.settings.here or not jobs:
            return "stopped; the same command continues"
        return (
            f"the jobs go on: losslab status {self._folder} shows them, the same command watches them, "
            f"scancel {' '.join(sorted(jobs))} ends them"
        )

    def _note_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._scheduler.stop()

    def _is_going_on(self) -> bool:
        if self._signals:
            return self.settings.here and self._signals == 1 and bool(self._watched)
        return bool(self._waiting or (self._watched and self.settings.wait))

    def _submit(self, runs: list[Run]) -> None:
        """Submit those of the runs that nobody has. One invocation at a time looks and submits."""
        groups: dict[Shape, list[Run]] = defaultdict(list)
        with suppress(Timeout), FileLock(self._folder / ".submitit" / ".lock", timeout=_TICK):
            alive = self._scheduler.alive()
            for run in runs:
                self._waiting.remove(run)
                record, job = known(run.folder), _read_job(run.folder)
                run.step = record.step
                if record.status in DONE:  # another invocation's job was quicker
                    run.status, run.step = "skipped", run.max_steps
                elif job in alive:
                    self._jobs[run.number] = job
                    self._watch(run, f"{alive[job].lower()} already", f" as job {job}")
                elif run.folder.is_locked():
                    self._watch(run, "running in another process")
                else:
                    put(run.folder, record, "planned", None)  # an older failure is not this job's
                    groups[self._shapes[run.number]].append(run)
            for shape, group in groups.items():
                self._submit_alike(shape, group)

    def _submit_alike(self, shape: Shape, runs: list[Run]) -> None:
        """Runs whose jobs need the same."""
        ranks = shape.devices // shape.tasks
        tasks = [SubmittedRun(run.folder.absolute(), run.trust, list(sys.path), ranks) for run in runs]
        if self.settings.here:
            for run in runs:
                run.began = time.monotonic()
                self._watch(run, "continued" if run.step else "started")
        for run, job in zip(runs, self._scheduler.submit(shape, tasks), strict=True):
            self._jobs[run.number] = job
            if not self.settings.here:  # whose processes end with this command
                write_atomic(run.folder.job, json.dumps({"job": job}).encode() + b"\n")
                self._watch(run, "submitted", f" as job {job}" + (f", from step {run.step}" if run.step else ""))

    def _watch(self, run: Run, event: str, rest: str = "") -> None:
        self._watched.append(run)
        tell(run, len(self.runs), event, rest)

    def _pause(self, display: Display) -> None:
        """Clusters do not like to be asked often: the longer this goes on, the seldomer."""
        elapsed = time.monotonic() - self._began
        until = time.monotonic() + (_TICK if self.settings.here else min(_LONGEST_PAUSE, max(1.0, elapsed / 20)))
        signals = self._signals
        while time.monotonic() < until and self._signals == signals:
            display.refresh()
            time.sleep(_TICK)

    def _look(self) -> None:
        try:
            alive = self._scheduler.alive()
        except UserError as error:  # it may answer again
            note(str(error))
            return
        for run in list(self._watched):
            self._missing[run.number] = 0 if self._jobs.get(run.number) in alive else self._missing[run.number] + 1
            self._look_at(run)

    def _look_at(self, run: Run) -> None:
        record = known(run.folder)
        run.step = record.step
        gone = self._missing[run.number] >= (1 if self.settings.here else _SETTLED)
        over = record.status in (*DONE, "failed")
        if not (gone or (over and not self.settings.here)) or (not over and run.folder.is_locked()):
            return
        if record.status in UNENDED:
            record = put(run.folder, record, "failed", self._last_words(run))
        self._watched.remove(run)
        tell_end(run, len(self.runs), record)

    def _last_words(self, run: Run) -> str:
        """The reason why a run ended that could not write it itself."""
        job = self._jobs.get(run.number)
        if job is None:
            return "the process that trained it ended before the run did"
        files = (self._folder / ".submitit").joinpath(f"{job}_0_log.err")
        return f"its job {job} ended before the run did, in state {self._scheduler.state(job)}, and left {files}"


def _read_job(run: RunFolder) -> str:
    """The id of the job that the run was last submitted as, if any."""
    try:
        return str(json.loads(run.job.read_text(encoding="utf-8"))["job"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
