"""Work of a submitted job: train one run in a process of its own, and pass signals on. No torch here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING

from losslab.reports import Cause, from_line
from losslab.run_folder import RunFolder
from losslab.sweeps.followed_run import is_silent, last_words, put, written
from losslab.training.process.signals import handling
from losslab.training.process.worker_command import HELD, worker_command, worker_environment

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

_SECONDS = 5.0
"""Time to read the last report of a worker that has ended."""


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
    cause: str = field(default="", init=False)
    """The worker's own reason for its end."""
    _worker: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self) -> int:
        """Returns the worker's exit code. Raises nothing of a run's: the record says how it ended."""
        noted = written(self.folder)
        reading, writing = os.pipe()
        listening = threading.Thread(target=self._listen, args=(reading,), daemon=True)
        with self._passing_signals_on(), self.folder.log.open("ab") as errors:
            self._worker = subprocess.Popen(
                [sys.executable, *worker_command(self.folder, self.trust)],
                env=self._environment(writing),
                stdin=subprocess.PIPE,  # its end shows the worker that this process has ended, for whatever reason
                stderr=errors,
                pass_fds=[writing],
                start_new_session=True,  # a terminal's Ctrl-C reaches it once, through us
                preexec_fn=_ignore_warnings,
            )
            os.close(writing)
            listening.start()
            if self.stopped:  # before there was a worker to signal
                self._stop()
            code = self._worker.wait()
            listening.join(_SECONDS)  # what the worker had started may hold the pipe open
            if self.cause:
                errors.write(f"losslab: {self.cause}\n".encode())
        if _is_first() and not (code == HELD and self.cause):
            self._settle(code, noted)
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

    def _listen(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if isinstance(report := from_line(line), Cause):
                    self.cause = report.message

    def _environment(self, reports: int) -> dict[str, str]:
        environment = worker_environment(self.path, reports=reports)
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # the node has more
            environment.setdefault("OMP_NUM_THREADS", str(max(1, int(cpus) // self.ranks)))
        return environment

    @contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """Let SIGTERM and Ctrl-C make the run save; earlier handlers are called, too."""

        def handle(number: int, frame: FrameType | None) -> None:
            self._stop()
            listener = before[signal.Signals(number)]
            if callable(listener) and listener is not signal.default_int_handler:
                listener(number, frame)

        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        with handling(dict.fromkeys(before, handle)):
            yield

    def _stop(self) -> None:
        self.stopped = True
        if self._worker is not None:
            self._worker.send_signal(signal.SIGTERM)

    def _settle(self, code: int, noted: int) -> None:
        """Complete the record of a worker that could not."""
        record = self.folder.record()
        if not is_silent(self.folder, record, noted):
            return
        if self.stopped:
            put(self.folder, record, "interrupted", "stopped by a signal")
        else:
            put(self.folder, record, "failed", self.cause or last_words(code))


def _ignore_warnings() -> None:
    """Ignore SIGUSR2: some clusters send a step's signals to all its processes, and this one ends those without a
    handler."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _is_first() -> bool:
    return int(os.environ.get("SLURM_PROCID", 0)) == 0
