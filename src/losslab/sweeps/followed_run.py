"""A run of a sweep as a launcher sees it, what is said of it, and how its record is completed. No torch here."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from losslab.console import complain, say
from losslab.errors import Held, UserError
from losslab.records import DONE, Record
from losslab.run_folder import RunFolder
from losslab.sweeps.slots import Slot

UNENDED = ("planned", "running")
"""Statuses of a record whose run has not ended."""


@dataclass
class Run:
    """A run of the sweep, as the launcher sees it."""

    number: int
    label: str
    folder: RunFolder
    width: int
    max_steps: int
    trust: list[str]
    status: str
    """The status in the record; `skipped` where it was done before, `submitted` where a cluster has it."""
    step: int = 0
    text: str = ""
    """Text of its bar."""
    error: str = ""
    attempts: int = 0
    process: BaseProcess | None = None
    events: Connection | None = None
    slots: list[Slot] = field(default_factory=list)
    began: float = 0.0
    stopped: str = ""
    """The reason why it was asked to end."""
    killed: bool = False
    pruned: bool = False
    """A search asked it to end."""
    heard: float = 0.0
    """The time of its last message."""
    noted: int = 0
    """The time at which its record was last written before it started, in ns."""
    elsewhere: bool = False
    """Another process has it."""
    looked: float = 0.0


def known(run: RunFolder) -> Record:
    """The record; where it is damaged or gone, one that says so, without an identity. The other runs go on."""
    try:
        return run.record()
    except UserError as error:
        return Record(identity="", name="", status="failed", error=str(error))


def written(run: RunFolder) -> int:
    """The time at which the record was last written, in ns."""
    return run.record_file.stat().st_mtime_ns if run.record_file.exists() else 0


def is_silent(run: RunFolder, record: Record, noted: int) -> bool:
    """Whether a process that has ended did not say how, in a record last written before it at `noted`."""
    if not record.identity:
        return False
    return record.status in UNENDED or (record.status not in DONE and written(run) == noted)


def put(run: RunFolder, record: Record, status: str, error: str | None) -> Record:
    """Complete the record by what the process could not write itself, unless another one holds it or has finished."""
    record.status, record.error = status, error
    with suppress(Held, OSError), run.lock():  # a full disk keeps the record, not the sentence
        newest = known(run)
        if newest.status in DONE or not newest.identity:
            return newest
        newest.status, newest.error = status, error
        run.write(newest)
        return newest
    return record


def tell(run: Run, total: int, event: str, rest: str = "") -> None:
    say(f"[{run.number}/{total}] {event:<12} {run.label}{rest}")


def tell_end(run: Run, total: int, record: Record) -> None:
    """Take the record over, and say what it says."""
    run.status, run.step, run.text = record.status, record.step, ""
    run.error = record.error or ""
    if run.status == "completed":
        headline = record.headline("test")
        shown = f"  {headline}" if headline else ""
        tell(run, total, "completed", f"{shown}  {time.monotonic() - run.began:.0f} s" if run.began else shown)
    elif run.status == "interrupted":
        kept = f"saved at step {run.step}" if run.step else "nothing was saved yet"
        tell(run, total, "interrupted", f": {run.error}; {kept}")
    elif run.status == "pruned":
        tell(run, total, "pruned", f": {run.error}")
    else:
        complain(failure_line(run, total))


def failure_line(run: Run, total: int) -> str:
    """One line for a run that failed or diverged."""
    return f"[{run.number}/{total}] {run.status}: {run.label}: {run.error}; see {run.folder.log}"


def last_words(code: int | None) -> str:
    """A sentence on the end of a process that left none itself."""
    if code is None or code >= 0:
        return f"its process ended with exit code {code} before the run did"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
    return f"its process was killed by {name}{hint}"
