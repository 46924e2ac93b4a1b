"""A planned sweep, as the planning process and the launcher pass it to each other. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losslab.metric import Metric
from losslab.run_folder import RunFolder
from losslab.sweeps.slots import Sharing


@dataclass(frozen=True)
class Job:
    """One combination of the multirun, as it was typed."""

    config: dict[str, Any]
    """The configuration after `check_run`."""
    defaults: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    label: str
    """The values that this run has and another has not, for people."""
    trial: dict[str, Any] | None = None
    """The trial of a search that the run belongs to, for its record."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of the sweep, with its folder."""

    number: int
    """Its place in the whole list, from 1."""
    label: str
    folder: RunFolder
    status: str
    """The status in the record when the sweep was planned."""
    step: int
    max_steps: int
    threads: int
    devices: int
    nodes: int
    accelerator: str
    trust: list[str]
    """Classes outside losslab that the person typed."""


@dataclass
class Plan:
    """The work of a sweep; or, in `mistakes`, the reasons why it cannot start."""

    runs: list[PlannedRun] = field(default_factory=list)
    """Each once, in the order of the list."""
    of_jobs: list[int] = field(default_factory=list)
    """The place in `runs` of each job's run."""
    sharing: Sharing | None = None
    """None: the runs compute elsewhere."""
    texts: list[str] = field(default_factory=list)
    """Files that were read, and those that were not and why: a line for each text."""
    notes: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Looked:
    """Facts on a study before its first trial."""

    primary: Metric
    """By whose best value on val trials are told apart."""
    settings: dict[str, Any]
    """Dotted key → value of what decides its first sample's result."""
    folder: Path
    """The sweep's."""


@dataclass
class Survey:
    """Everything that a search may draw, looked at and not claimed; or, in `mistakes`, why it cannot start."""

    studies: list[Looked] = field(default_factory=list)
    """One for each study, in their order."""
    sharing: Sharing | None = None
    texts: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Names of samples that are there, and were trained with other code than that of now."""
    mistakes: list[str] = field(default_factory=list)


@dataclass
class Missing:
    """Runs of a multirun that have no result and that nobody trains; or, in `mistakes`, why it cannot start."""

    jobs: list[int] = field(default_factory=list)
    """The first job of each such run."""
    done: int = 0
    running: int = 0
    mistakes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """The result of a job that somebody else's launcher ran, as the record says."""

    label: str
    status: str
    error: str
    folder: RunFolder | None
    """None: it never became a run."""

    def failure_line(self, number: int, total: int) -> str:
        """One line for a run that failed or diverged."""
        where = "" if self.folder is None else f"; see {self.folder.log}"
        return f"[{number}/{total}] {self.status}: {self.label}: {self.error}{where}"
