"""A multirun, between Hydra, which expands it, and the launchers, which run it. No torch here."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from losslab.config.compose import compose_plain, group_choices
from losslab.console import complain, say
from losslab.errors import UserError
from losslab.records import DONE, now
from losslab.run_folder import RunFolder
from losslab.sweeps import server
from losslab.sweeps.cluster import Cluster
from losslab.sweeps.followed_run import Run, failure_line
from losslab.sweeps.job import Surroundings, find_missing, look_up, make_plan
from losslab.sweeps.local import Sweep
from losslab.sweeps.plan import Ended, Job, Missing, Plan
from losslab.sweeps.scheduler import Shape
from losslab.sweeps.settings import LocalSettings, SlurmSettings
from losslab.sweeps.slots import Sharing
from losslab.sweeps.source import Listed

REFUSED = "refused"
"""The status of a job that never became a run, because the input was bad."""
FAILED = ("failed", "interrupted", REFUSED)
"""Statuses that give the command exit code 1."""
Checked = tuple[dict[str, Any], dict[str, str]]
"""A job's configuration after `check_run`, and its choices."""


class RunFailed(Exception):
    """The failure of a run, for Hydra: it stands in the JobReturn, whose status is then FAILED."""


class Multirun:
    """The function that Hydra is given. It has the jobs already.

    Args:
        jobs: by the overrides of each, in the order in which they run.
        config_dir: a person's own yaml files.
        run_here: one job in this process, for a single run and for Hydra's basic launcher.
        check_interrupts: raises KeyboardInterrupt where Ctrl-C came while Hydra composed, and was swallowed.
        typed: the words of the command, for Hydra's note of the multirun.
        on_mistake: called with each reason why the jobs cannot start.
    """

    def __init__(
        self,
        jobs: dict[tuple[str, ...], Checked],
        config_dir: Path | None,
        run_here: Callable[[DictConfig, str], str],
        check_interrupts: Callable[[], None] = lambda: None,
        typed: list[str] | None = None,
        on_mistake: Callable[[str], None] = complain,
    ) -> None:
        self._jobs = jobs
        self.typed = typed or []
        self._config_dir = config_dir
        self._run_here = run_here
        self._check_interrupts = check_interrupts
        self._on_mistake = on_mistake
        self._defaults: dict[tuple[str, ...], dict[str, Any]] = {}
        self._process, self._began = os.getpid(), now()
        self.statuses: list[str] = []
        """The status of each run, of all batches in which Hydra may hand out the jobs."""
        self.folders: list[RunFolder] = []
        """The run of each job, where it has become one."""
        self.launched = False
        """Whether a launcher of ours ran it, which has said how it ended."""
        self.stopped = False
        """Whether a signal stopped it."""
        self.parting = "stopped; the same command continues"
        """The last line of a command that was stopped."""

    @property
    def jobs(self) -> list[tuple[str, ...]]:
        """The overrides of each job."""
        return list(self._jobs)

    @property
    def checked(self) -> list[Checked]:
        """Configuration and choices of each job."""
        return list(self._jobs.values())

    def __call__(self, config: DictConfig) -> None:
        """One job in this process."""
        self._check_interrupts()
        hydras: Any = HydraConfig.get()
        number = OmegaConf.select(hydras, "job.num", default=0) + 1
        status = self._run_here(config, f"[{number}/{len(self._jobs)}] ")
        self.statuses.append(status)
        if status == "interrupted" and len(self.statuses) < len(self._jobs) and os.getpid() == self._process:
            raise KeyboardInterrupt  # Hydra takes any Exception for the job's own and starts the next
        if status in FAILED:
            raise RunFailed(f"the run is {status}: {' '.join(HydraConfig.get().overrides.task)}")

    def launch(self, job_overrides: list[list[str]], settings: dict[str, Any]) -> list[str]:
        """All jobs on this machine, each in a process of its own; returns what became of each job."""
        local = LocalSettings.of(settings)
        plan = self.plan(job_overrides, slots=local.slots)
        if (runs := self._open(plan)) and plan.sharing is not None:
            return self._work(plan, runs, Sweep(Listed(runs), runs[0].folder.sweep, plan.sharing.slots, local))
        return [REFUSED] * len(job_overrides)

    def submit(self, job_overrides: list[list[str]], settings: dict[str, Any]) -> list[str]:
        """All jobs on a cluster, by submitit; returns what became of each job."""
        cluster = SlurmSettings.of(settings)
        plan = self.plan(job_overrides, slots=cluster.at_once, here=cluster.here)
        if runs := self._open(plan):
            shapes = {run.number: Shape(run.nodes, run.devices, run.accelerator) for run in plan.runs}
            sweep = Cluster(runs, shapes, runs[0].folder.sweep, cluster)
            statuses = self._work(plan, runs, sweep)
            self.parting = sweep.parting()
            return statuses
        return [REFUSED] * len(job_overrides)

    def _open(self, plan: Plan) -> list[Run]:
        """Introduce the runs; none where the plan was refused."""
        self._check_interrupts()
        self.launched = True
        if plan.mistakes:
            self.statuses.append(REFUSED)
            return []
        introduce(plan)
        return open_runs(plan, plan.sharing)

    def _work(self, plan: Plan, runs: list[Run], sweep: Sweep | Cluster) -> list[str]:
        self.stopped = sweep.work()
        statuses = [run.status for run in runs]
        self.statuses += statuses
        self.folders += [runs[place].folder for place in plan.of_jobs]
        summarise(statuses)
        for run in runs:
            if run.status in ("failed", "diverged"):
                complain(failure_line(run, len(runs)))
        if "failed" in statuses and not self.stopped:
            say("the same command tries failed runs again, from their last checkpoint")
        return [statuses[place] for place in plan.of_jobs]

    def look_up(self) -> None:
        """Take from their records what became of jobs that a launcher of somebody else's ran in other processes."""
        if len(self.statuses) == len(self._jobs):  # in this process
            summarise(self.statuses)
            return
        ended: list[Ended] = self._ask(look_up, self._list_jobs([list(job) for job in self._jobs]), self._began)
        self.statuses = [one.status for one in ended]
        self.folders = [one.folder for one in ended if one.folder is not None]
        summarise(self.statuses)
        for number, one in enumerate(ended, start=1):
            if one.status in ("failed", "diverged", REFUSED):
                complain(one.failure_line(number, len(ended)))

    def plan(self, job_overrides: list[list[str]], *, slots: int | None = None, here: bool = True) -> Plan:
        """Plan the runs, in a process of its own: it needs torch, and a person's classes, which may do anything. Their
        faults are reported.

        Raises:
            UserError: when that process dies.
        """
        plan: Plan = self._ask(make_plan, self._list_jobs(job_overrides), slots, here)
        for mistake in plan.mistakes:
            self._on_mistake(mistake)
        return plan

    def missing(self) -> Missing:
        """The runs that have no result, looked for in a process of its own; its mistakes are reported."""
        found: Missing = self._ask(find_missing, self._list_jobs([list(job) for job in self._jobs]))
        for mistake in found.mistakes:
            self._on_mistake(mistake)
        return found

    def _list_jobs(self, job_overrides: list[list[str]]) -> list[Job]:
        jobs = []
        for overrides, label in zip(job_overrides, _labels(job_overrides), strict=True):
            config, choices = self._jobs[tuple(overrides)]
            label = label or f"loss={choices['loss']} seed={config['seed']}"
            jobs.append(Job(config, self._defaults_of(overrides), choices, overrides, label))
        return jobs

    def _ask(self, target: Callable[..., None], *arguments: Any) -> Any:
        """The answer of a function of job.py, in a process of its own. Raises UserError when that process dies, and
        KeyboardInterrupt where it was stopped."""
        surroundings = Surroundings(dict(os.environ), os.getcwd())  # noqa: PTH109
        process, receiving = server.follow(target, *arguments, surroundings, name="plan")
        try:
            answer = receiving.recv()
        except EOFError:
            process.join()
            code = process.exitcode
            self._check_interrupts()
            if code in (-signal.SIGTERM, -signal.SIGHUP):  # in its first moment, by a signal to the whole group
                raise KeyboardInterrupt from None
            raise UserError(f"the sweep's classes ended the process that planned it (exit code {code})") from None
        except KeyboardInterrupt:
            process.kill()  # nobody would read its answer; the next plan finds the planned runs
            raise
        process.join()
        return answer

    def _defaults_of(self, overrides: list[str]) -> dict[str, Any]:
        chosen = group_choices(overrides)
        if tuple(chosen) not in self._defaults:
            self._defaults[tuple(chosen)] = compose_plain(chosen, self._config_dir)
        return self._defaults[tuple(chosen)]


def open_runs(plan: Plan, sharing: Sharing | None) -> list[Run]:
    """The planned runs, as the launcher follows them."""
    return [
        Run(
            number=run.number,
            label=run.label,
            folder=run.folder,
            width=1 if sharing is None else sharing.width(run.threads),
            max_steps=run.max_steps,
            trust=run.trust,
            status=run.status,
            step=run.step,
        )
        for run in plan.runs
    ]


def introduce(plan: Plan) -> None:
    """Say how many runs the sweep holds, how many are done, and how the rest shares the machine."""
    for text in plan.texts:
        say(f"data: {text}")
    for note in plan.notes:
        say(f"note: {note}")
    done = sum(run.status in DONE for run in plan.runs)
    folders = ", ".join(dict.fromkeys(str(run.folder.sweep) for run in plan.runs))
    text = f"{len(plan.runs)} run{'s' if len(plan.runs) > 1 else ''} in {folders}"
    text += f", {done} of them done" if done else ""
    if done < len(plan.runs) and plan.sharing is not None:
        text += f"; {plan.sharing.slots_text()}"
    say(text)


def summarise(statuses: list[str]) -> None:
    counts = Counter(statuses)
    say("runs: " + ", ".join(f"{counts[status]} {status}" for status in sorted(counts)))


def _labels(jobs: list[list[str]]) -> list[str]:
    """Labels of jobs: the overrides that not all of them have."""
    common = set(jobs[0]).intersection(*jobs[1:])
    return [" ".join(override for override in job if override not in common) for job in jobs]
