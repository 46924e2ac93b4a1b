"""A multirun, between Hydra, which expands it, and the launchers, which run it. No torch here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from losslab.config.compose import compose_plain, group_choices
from losslab.console import complain, say
from losslab.errors import UserError
from losslab.records import DONE
from losslab.sweeps import server
from losslab.sweeps.cluster import Cluster
from losslab.sweeps.job import Surroundings, make_plan
from losslab.sweeps.launch import Sweep
from losslab.sweeps.plan import Job, Plan
from losslab.sweeps.run import Run, describe
from losslab.sweeps.scheduler import Shape
from losslab.sweeps.settings import LocalSettings, SlurmSettings
from losslab.sweeps.slots import Sharing

REFUSED = "refused"
"""Of what never became a run, because the input was bad."""
FAILED = ("failed", "interrupted", REFUSED)
"""What gives the command exit code 1."""
Checked = tuple[dict[str, Any], dict[str, str]]
"""A job's configuration after `check_run`, and its choices."""


class Multirun:
    """The function that Hydra is given. It knows the jobs already.

    Args:
        jobs: by the overrides of each, in the order in which they run.
        config_dir: a person's own yaml files.
        run_here: one job in this process, for a single run and for Hydra's basic launcher.
        check_interrupts: raises KeyboardInterrupt where Ctrl-C came while Hydra composed, and was swallowed.
        typed: the words of the command, for Hydra's note of the multirun.
    """

    def __init__(
        self,
        jobs: dict[tuple[str, ...], Checked],
        config_dir: Path | None,
        run_here: Callable[[DictConfig, str], str],
        check_interrupts: Callable[[], None] = lambda: None,
        typed: list[str] | None = None,
    ) -> None:
        self._jobs = jobs
        self.typed = typed or []
        self._config_dir = config_dir
        self._run_here = run_here
        self._check_interrupts = check_interrupts
        self._defaults: dict[tuple[str, ...], dict[str, Any]] = {}
        self.statuses: list[str] = []
        """What became of each run."""
        self.launched = False
        """By a launcher of ours, which has said how it ended."""
        self.stopped = False
        """By a signal."""
        self.parting = "stopped; the same command continues"
        """What is said then."""

    @property
    def jobs(self) -> list[tuple[str, ...]]:
        """The overrides of each job."""
        return list(self._jobs)

    def __call__(self, config: DictConfig) -> None:
        """One job in this process."""
        self._check_interrupts()
        status = self._run_here(config, f"[{len(self.statuses) + 1}/{len(self._jobs)}] ")
        self.statuses.append(status)
        if status == "interrupted" and len(self.statuses) < len(self._jobs):
            raise KeyboardInterrupt  # Hydra takes any Exception for the job's own and starts the next

    def launch(self, job_overrides: list[list[str]], settings: dict[str, Any]) -> list[str]:
        """All jobs on this machine, each in a process of its own; returns what became of each run."""
        local = LocalSettings.of(settings)
        plan = self.plan(job_overrides, slots=local.slots)
        if (runs := self._open(plan)) and plan.sharing is not None:
            self._work(runs, Sweep(runs, runs[0].folder.parent, plan.sharing.slots, local))
        return self.statuses

    def submit(self, job_overrides: list[list[str]], settings: dict[str, Any]) -> list[str]:
        """All jobs on a cluster, by submitit; returns what became of each run."""
        cluster = SlurmSettings.of(settings)
        plan = self.plan(job_overrides, slots=cluster.at_once, here=cluster.here)
        if runs := self._open(plan):
            shapes = {run.number: Shape(run.nodes, run.devices, run.accelerator) for run in plan.runs}
            sweep = Cluster(runs, shapes, runs[0].folder.parent, cluster)
            self._work(runs, sweep)
            self.parting = sweep.parting()
        return self.statuses

    def _open(self, plan: Plan) -> list[Run]:
        """Introduce the runs; none where the plan was refused."""
        self._check_interrupts()
        self.launched = True
        if plan.mistakes:
            self.statuses = [REFUSED]
            return []
        introduce(plan)
        return open_runs(plan, plan.sharing)

    def _work(self, runs: list[Run], sweep: Sweep | Cluster) -> None:
        self.stopped = sweep.work()
        self.statuses = [run.status for run in runs]
        summarise(self.statuses)
        for run in runs:
            if run.status in ("failed", "diverged"):
                complain(describe(run, len(runs)))
        if "failed" in self.statuses and not self.stopped:
            say("the same command tries failed runs again, from their last checkpoint")

    def plan(self, job_overrides: list[list[str]], *, slots: int | None = None, here: bool = True) -> Plan:
        """Plan the runs, in a process of its own: it needs torch, and a person's classes, which may do anything. What
        is wrong with them is told.

        Raises:
            UserError: when that process dies.
        """
        jobs = []
        for overrides, label in zip(job_overrides, _labels(job_overrides), strict=True):
            config, choices = self._jobs[tuple(overrides)]
            label = label or f"loss={choices['loss']} seed={config['seed']}"
            jobs.append(Job(config, self._defaults_of(overrides), choices, overrides, label))
        surroundings = Surroundings(dict(os.environ), os.getcwd())  # noqa: PTH109
        process, receiving = server.follow(make_plan, jobs, slots, here, surroundings, name="plan")
        try:
            plan: Plan = receiving.recv()
        except EOFError:
            process.join()
            code = process.exitcode
            self._check_interrupts()
            raise UserError(f"the sweep's classes ended the process that planned it (exit code {code})") from None
        except KeyboardInterrupt:
            process.kill()  # nobody would hear its answer; what it has planned, the next plan finds
            raise
        process.join()
        for mistake in plan.mistakes:
            complain(mistake)
        return plan

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
    """What the sweep holds, what of it is done, and how the rest shares the machine."""
    for text in plan.texts:
        say(f"text: {text}")
    for note in plan.notes:
        say(f"note: {note}")
    done = sum(run.status in DONE for run in plan.runs)
    folders = ", ".join(dict.fromkeys(str(run.folder.parent) for run in plan.runs))
    text = f"{len(plan.runs)} run{'s' if len(plan.runs) > 1 else ''} in {folders}"
    text += f", {done} of them done" if done else ""
    if done < len(plan.runs) and plan.sharing is not None:
        text += f"; {plan.sharing.describe()}"
    say(text)


def summarise(statuses: list[str]) -> None:
    counts = Counter(statuses)
    say("runs: " + ", ".join(f"{counts[status]} {status}" for status in sorted(counts)))


def _labels(jobs: list[list[str]]) -> list[str]:
    """What tells each job apart: the overrides that not all have."""
    common = set(jobs[0]).intersection(*jobs[1:])
    return [" ".join(override for override in job if override not in common) for job in jobs]
