"""Expand a multirun that was typed: its jobs, or the samples of what it searches."""

from __future__ import annotations

import os
import sys

import typer

from losslab.commands.command_line import CommandLine, Growing, Searched
from losslab.config.jobs import Multirun, job_overrides, open_multirun, study_spaces
from losslab.console import say
from losslab.errors import UserError
from losslab.sweeps import server
from losslab.sweeps.journal import check_optuna
from losslab.sweeps.scheduler import check_executor
from losslab.sweeps.settings import LocalSettings, SearchSettings, SlurmSettings
from losslab.sweeps.study import check_grid
from losslab.training.process.slurm import is_task_of_many

_SWEEPER = "hydra.sweeper._target_=hydra_plugins.losslab_launcher.ListedSweeper"
_LOCAL, _SLURM = "local", "hydra_plugins.losslab_launcher.SlurmLauncher"
_IN_PROCESS = "hydra._internal.core_plugins."
_KNOWN_LAUNCHERS = ("hydra_plugins.losslab_launcher.", _IN_PROCESS)
_MANY = 1000
"""A multirun with more runs is one only if its person says so."""


def expand(line: CommandLine) -> tuple[list[list[str]], list[str]]:
    """The overrides of each job of a multirun, and Hydra's own; a very large one only if that is meant."""
    if "RANK" in os.environ or is_task_of_many():
        by = "torchrun" if "RANK" in os.environ else "srun"
        raise UserError(f"a multirun starts its ranks itself: start losslab train -m without {by}")
    opened = open_multirun(line.overrides, line.config_dir)
    if opened.launcher == _LOCAL:
        LocalSettings.of(opened.settings)
    elif opened.target == _SLURM:  # which a person's own file may name as well
        check_executor(SlurmSettings.of(opened.settings))
    if line.called and opened.target.startswith(_IN_PROCESS):
        raise UserError(f"hydra/launcher={opened.launcher} trains in the calling process: leave it out")
    if not opened.target.startswith(_KNOWN_LAUNCHERS):
        line.foreign_launcher = opened.launcher
    if opened.launcher == _LOCAL or opened.target == _SLURM:
        server.warm_up()
    settings = None if opened.search is None else _check_search(opened)
    line.growing = _check_growing(opened)
    count = opened.count * (1 if settings is None else settings.n_trials)
    count *= 1 if opened.auto is None else opened.auto.max_seeds
    if count > _MANY:
        most = "up to " if opened.auto is not None else ""
        ask(line, f"these are {most}{count:,} runs", "start them?", "add --yes if you mean it")
    for note in opened.notes:
        say(f"note: {note}")
    if settings is None:
        line.for_hydra = [*opened.common, _SWEEPER]
        first = [] if opened.auto is None else [f"seed={opened.auto.first_seed}"]
        return [[*job, *first] for job in job_overrides(opened)], opened.hydra_overrides
    line.for_hydra = opened.common
    spaces = study_spaces(opened)
    line.search = Searched(spaces, settings, opened.hydra_overrides)
    if settings.sampler == "grid":
        for space in spaces:
            check_grid(space)
    return [sample for space in spaces for sample in space.samples()], opened.hydra_overrides


def ask(line: CommandLine, fact: str, question: str, way_out: str) -> None:
    """Go on only where a person means what was found. Raises UserError otherwise."""
    if line.yes:
        return
    if line.called or not sys.stdin.isatty():
        raise UserError(f"{fact}: {way_out}")
    try:
        meant = typer.confirm(f"{fact}; {question}")
    except typer.Abort:
        meant = False
    if not meant:
        raise UserError("nothing was started")


def _check_growing(opened: Multirun) -> Growing | None:
    """The rule by which seeds are added, if they are. Raises UserError where it cannot be followed."""
    if opened.auto is None:
        return None
    if opened.launcher != _LOCAL:
        raise UserError(
            f"seed=auto works with hydra/launcher=local, not {opened.launcher}: on a cluster, start the same command "
            "in several jobs, which share the sweep (docs/stopping.md)"
        )
    from losslab.sequential.rule import Rule  # scipy takes a moment to import

    Rule(margin=opened.auto.margin, max_seeds=opened.auto.max_seeds, losses=max(opened.count - 1, 1))
    return Growing(opened.auto, opened.hydra_overrides)


def _check_search(opened: Multirun) -> SearchSettings:
    """The settings of a search. Raises UserError for what makes no sense, and where Optuna is missing."""
    settings = SearchSettings.of(opened.search or {})
    check_optuna()
    if opened.launcher != _LOCAL:
        raise UserError(
            f"hydra/sweeper=optuna works with hydra/launcher=local, not {opened.launcher}: on a cluster, start the "
            "same command in several jobs, which share the studies (docs/tuning.md)"
        )
    if not opened.dimensions:
        raise UserError(
            "hydra/sweeper=optuna finds nothing to search: write KEY=interval(…), choice(…) or range(…); plain lists "
            "of values are studies of their own"
        )
    return settings
