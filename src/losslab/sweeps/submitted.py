"""Work of a submitted job: train one run in a process of its own, and pass signals on. No torch here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING

from losslab.run_folder import RunFolder
from losslab.sweeps.followed_run import HELD, is_silent, last_words, put, written
from losslab.training.process.worker_command import worker_command, worker_environment

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

_COMPLAINT = "losslab: "
"""Begins the sentence with which the worker ends for bad input."""


@dataclass
class SubmittedRun:
    """submitit pickles it, and calls it in the job, on each of its tasks."""

    folder: RunFolder
    trust: list[str]
    """Classes outside losslab that the person typed."""
    path: list[str]
    """sys.path of the command, where those classes are."""
    ranks: int
    """Processes that each task will start."""
    stopped: bool = field(default=False, init=False)
    _worker: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self) -> int:
        """Returns the worker's exit code. Raises nothing of a run's: the record says how it ended."""
        noted, log = written(self.folder), self.folder.log
        before = log.stat().st_size if log.exists() else 0
        with self._passing_signals_on(), log.open("ab") as errors:
            self._worker = subprocess.Popen(
                [sys.executable, *worker_command(self.folder, self.trust)],
                env=self._environment(),
                stdin=subprocess.PIPE,  # its end shows the worker that this process has ended, for whatever reason
                stderr=errors,
                start_new_session=True,  # a terminal's Ctrl-C reaches it once, through us
                preexec_fn=_ignore_warnings,
            )
            if self.stopped:  # before there was a worker to signal
                self._stop()
            code = self._worker.wait()
        if _is_first() and not (code == HELD and self._complaint(before)):
            self._settle(code, noted, before)
        return code

    def checkpoint(self) -> DelayedSubmission:
        """submitit calls this when the cluster warns of the job's end: once the run has saved, the same again."""
        from submitit.core.utils import DelayedSubmission

        self._stop()
        if self._worker is not None:
            # Popen's own wait would need the lock that the interrupted one holds.
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self._worker.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(replace(self))

    def _environment(self) -> dict[str, str]:
        environment = worker_environment(self.path)
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # the node has more
            environment.setdefault("OMP_NUM_THREADS", str(max(1, int(cpus) // self.ranks)))
        return environment

    @contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C let the run save; earlier handlers are called, too."""

        def handle(number: int, frame: FrameType | None) -> None:
            self._stop()
            listener = before[signal.Signals(number)]
            if callable(listener) and listener is not signal.default_int_handler:
                listener(number, frame)

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        self.stopped = True
        if self._worker is not None:
            self._worker.send_signal(signal.SIGTERM)

    def _settle(self, code: int, noted: int, before: int) -> None:
        """Complete the record of a worker that could not."""
        record = self.folder.record()
        if not is_silent(self.folder, record, noted):
            return
        if self.stopped:
            put(self.folder, record, "interrupted", "stopped by a signal")
        else:
            put(self.folder, record, "failed", self._complaint(before) or last_words(code))

    def _complaint(self, before: int) -> str:
        """The last message of the worker, behind so many bytes of its log."""
        with self.folder.log.open("rb") as file:
            file.seek(before)
            lines = file.read().decode(errors="replace").splitlines()
        said = [line.removeprefix(_COMPLAINT) for line in lines if line.startswith(_COMPLAINT)]
        return said[-1] if said else ""


def _ignore_warnings() -> None:
    """Some clusters send a step's signals to all its processes, and this one ends those that do not handle it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _is_first() -> bool:
    return int(os.environ.get("SLURM_PROCID", 0)) == 0
