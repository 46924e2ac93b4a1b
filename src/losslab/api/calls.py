"""train, sweep, runs and load: the commands of the same names, for a program or a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from losslab.api.loading import load_network
from losslab.api.run import Run, Sweep, ended
from losslab.api.surroundings import borrowed
from losslab.api.words import checked_words, refuse_objects
from losslab.commands.command_line import CommandLine, parse
from losslab.commands.train import open_runs, run_all
from losslab.config import schema
from losslab.config.trust import foreign_targets
from losslab.console import note, say
from losslab.errors import UserError
from losslab.records import DONE, FILE
from losslab.sweeps.interrupts import Interrupts
from losslab.sweeps.multirun import Multirun
from losslab.sweeps.single import Single

if TYPE_CHECKING:
    from losslab.training.scoring.loading import Loaded

Folder = str | os.PathLike[str]


def train(
    overrides: Sequence[str] = (),
    *,
    config_dir: Folder | None = None,
    yes: bool = False,
    progress: bool = True,
    **objects: Never,
) -> Run:
    """Train one run, continue its unfinished one, or return its finished one, as `losslab train` does.

    It trains in a process of its own: nothing of this one changes, and a class that was edited is read again.

    Args:
        overrides: the words behind `losslab train`: GROUP=CHOICE and KEY=VALUE.
        config_dir: the folder of your own yaml files.
        yes: other settings than those of the runs in the folder are meant.
        progress: False prints nothing.

    Returns:
        The run, `completed` or `diverged`.

    Raises:
        UserError: for bad input, before any run's file is written.
        RunFailed: where the run ends without a result; the message names the log.
        KeyboardInterrupt: once the run has been saved; the same call continues it.
    """
    line = _line("train", overrides, config_dir, yes, objects)
    with borrowed(f"losslab.train({line.overrides})", progress=progress):
        schema.register()
        mistakes: list[str] = []
        with Interrupts() as interrupts:
            multirun = _open(line, interrupts, mistakes)
            if line.multirun:
                raise UserError("these words are a multirun: call losslab.sweep with them")
            plan = multirun.plan([list(job) for job in multirun.jobs])
            interrupts.check()
        _refuse(mistakes)
        for told in plan.notes:
            note(told)
        (planned,) = plan.runs
        run = Run(planned.folder.path, trust=planned.trust)
        if planned.status in DONE:
            say(f"already {planned.status}: {run.folder}")
            return run
        try:
            record = Single(planned.folder, planned.trust, label=planned.label).work()
        except KeyboardInterrupt:
            say(f"stopped; the same call continues {run.folder} after step {run.record.step}")
            raise
        if record.status in DONE:
            say(f"{record.status}: {run.folder}  {record.headline('test')}".rstrip())
    return ended(run, record)


def sweep(
    overrides: Sequence[str] = (),
    *,
    config_dir: Folder | None = None,
    yes: bool = False,
    progress: bool = True,
    **objects: Never,
) -> Sweep:
    """Train every combination of the values, as `losslab train -m` does: the same call adds only what is missing.

    A run that fails does not end the others, and raises nothing: it is in `Sweep.failed`.

    Args:
        overrides: the words behind `losslab train -m`, such as `loss=cross_entropy,focal` and `seed=1,2,3`.
        config_dir: the folder of your own yaml files.
        yes: more than 1,000 runs, or other settings than those of the runs in the folder, are meant.
        progress: False prints nothing.

    Raises:
        UserError: for bad input, before any run starts.
        KeyboardInterrupt: once the runs have been saved; the same call continues them.
    """
    line = _line("sweep", overrides, config_dir, yes, objects)
    line.multirun = True
    with borrowed(f"losslab.sweep({line.overrides})", progress=progress):
        schema.register()
        mistakes: list[str] = []
        with Interrupts() as interrupts:
            multirun = _open(line, interrupts, mistakes)
            whole = run_all(multirun, line, interrupts)
        _refuse(mistakes)
        if multirun.stopped:
            raise KeyboardInterrupt
        if not whole and not multirun.folders:
            raise UserError("the launcher gave up before any run began; HYDRA_FULL_ERROR=1 shows why")
    classes = {name: None for config, _ in multirun.checked for name in foreign_targets(config)}
    return Sweep(Run(folder.path, trust=classes) for folder in multirun.folders)


def runs(folder: Folder) -> Sweep:
    """The runs below a folder, finished or not: of a sweep, of all of `outputs`, or the one that it is.

    Raises:
        UserError: where there are none.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder")
    found = sorted({file.parent for pattern in (FILE, f"*/{FILE}", f"*/*/{FILE}") for file in path.glob(pattern)})
    if not found:
        raise UserError(f"{path} holds no runs")
    return Sweep(Run(run) for run in found)


def load(path: Folder | Run, *, checkpoint: str = "best", trust: Iterable[str] = (), weights: str = "raw") -> Loaded:
    """Rebuild tokenizer, model and loss from a run, its folder, a checkpoint or an export; runs no code out of them.

    See `losslab.training.scoring.loading.load`.
    """
    if isinstance(path, Run):
        return path.load(checkpoint, trust=trust, weights=weights)
    return load_network(Path(path), checkpoint=checkpoint, trust=trust, weights=weights)


def _line(
    function: str, overrides: Sequence[str], config_dir: Folder | None, yes: bool, objects: dict[str, Any]
) -> CommandLine:
    """The command that these arguments stand for. Raises UserError for objects and flags."""
    refuse_objects(function, objects)
    words = checked_words(overrides)
    if flags := [word for word in words if word.startswith("-")]:
        raise UserError(f"{flags[0]!r} is a flag of the command line; losslab.{function} takes overrides alone")
    line = parse(words)
    line.config_dir = None if config_dir is None else Path(config_dir)
    line.yes, line.called = yes, True
    return line


def _open(line: CommandLine, interrupts: Interrupts, mistakes: list[str]) -> Multirun:
    try:
        return open_runs(line, interrupts, mistakes.append)
    except UserError as error:
        raise UserError(str(error).replace("--yes", "yes=True").replace("add -m", "call losslab.sweep")) from None


def _refuse(mistakes: list[str]) -> None:
    if mistakes:
        raise UserError("; ".join(mistakes))
