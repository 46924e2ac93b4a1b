"""`losslab train`: check everything that was typed, without torch, then let Hydra hand each job to training."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import main as hydra_main
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from losslab.choices import conf_dir
from losslab.commands.command_line import CommandLine, parse
from losslab.commands.expand import ask, expand
from losslab.commands.folder import check_folder
from losslab.commands.forgotten import find_forgotten
from losslab.commands.trusted import append_current_folder
from losslab.commands.usage import stopped
from losslab.config import schema
from losslab.config.check import check_run, check_warmup
from losslab.config.compose import CONFIG_NAME, compose_job, compose_plain, group_choices, own_choices, to_plain
from losslab.config.data_path import check_path
from losslab.config.jobs import is_multirun, single_job
from losslab.config.search import with_hint
from losslab.config.words import bare
from losslab.console import complain, say, working
from losslab.data.text_files import find_files
from losslab.errors import UserError, error_sentence
from losslab.records import COMMAND, Record
from losslab.sweeps import server
from losslab.sweeps.interrupts import NOTHING_STARTED, Interrupts
from losslab.sweeps.multirun import FAILED, REFUSED, Checked, Multirun, RunFailed
from losslab.sweeps.tuning import Tuning

if TYPE_CHECKING:
    from losslab.training.process.start import Outcome

_FULL_ERROR = "HYDRA_FULL_ERROR"
_TEXT = "losslab.data.module.TextDataModule"
"""Whose paths are looked up before anything is imported; other data looks for its own."""
_OF_MULTIRUNS = tuple(f"hydra{sign}{name}" for name in ("launcher", "sweeper") for sign in "./")
_LONGEST = 300
"""Characters of somebody else's words that a sentence holds."""
_TOLD = 50
"""The number of jobs above which composing them shows progress."""


def train(arguments: list[str]) -> int:
    """Run the command; returns its exit code: 0, 1 if any run failed, 130 where it was stopped between or in jobs.

    Raises:
        UserError: for a mistake in what was typed, before any job starts.
    """
    append_current_folder()  # where a person's own loss lives
    schema.register()
    line = parse(arguments)
    if line.hydra_flags:
        line.overrides = single_job(line.overrides)
        is_multirun(line.overrides, line.config_dir)  # answers a mistake in a sentence, before Hydra shows anything
        compose_job(line.overrides, line.config_dir)
        _hydra(lambda config: None, line)
        return 0
    typed = shlex.join(["losslab", "train", *arguments])
    with Interrupts() as interrupts, server.changed_environment({COMMAND: typed}):
        return _print_jobs(line, interrupts) if line.print_jobs else _train(line, interrupts)


def open_runs(line: CommandLine, interrupts: Interrupts, on_mistake: Callable[[str], None] = complain) -> Multirun:
    """Compose and check every job of a command, before any starts.

    Args:
        on_mistake: called with each mistake that shows only where the runs' own classes are imported.

    Raises:
        UserError: for a mistake in what was typed.
        KeyboardInterrupt: where Ctrl-C came.
    """
    try:
        line.multirun = line.multirun or is_multirun(line.overrides, line.config_dir)
        multirun = _make_multirun(line, interrupts, list(line.overrides), on_mistake)
    finally:
        interrupts.check()  # of a signal inside them, OmegaConf's own contexts may have made any exception
    return multirun


def _print_jobs(line: CommandLine, interrupts: Interrupts) -> int:
    """Print a shell line for each run without a result, for any queue; everything else goes to standard error."""
    for word in line.overrides:
        if word.lstrip("+~").startswith(("hydra/launcher", "hydra.launcher")):
            raise UserError(f"{word} is about a launcher, and --print-jobs leaves the launching to you: leave it out")
        if word.startswith("fresh=") and word != "fresh=false":
            raise UserError(f"{word} repeats a run at each start of a line: leave it out of --print-jobs")
    with redirect_stdout(sys.stderr):
        multirun = open_runs(line, interrupts)
        if not line.multirun:
            raise UserError("--print-jobs is about a multirun: add -m, or leave it out")
        if line.search is not None or line.growing is not None:
            what, page = ("a search, whose trials", "tuning") if line.search else ("seed=auto, whose runs", "stopping")
            raise UserError(
                f"--print-jobs has no list of {what} follow from results: start the same command in several jobs, "
                f"which share them (docs/{page}.md)"
            )
        found = multirun.missing()
        interrupts.check()
        if found.mistakes:
            return 2
        say(f"{len(found.jobs)} to run, {found.done} done" + (f", {found.running} running" * (found.running > 0)))
    flags = ["--yes"] if line.yes else []
    flags += ["--config-dir", str(line.config_dir)] if line.config_dir is not None else []
    for job in (multirun.jobs[place] for place in found.jobs):
        single = ["hydra.mode=RUN"] if is_multirun(list(job), line.config_dir) else []
        say(shlex.join(["losslab", "train", *flags, *job, *single]))
    return 0


def _train(line: CommandLine, interrupts: Interrupts) -> int:
    try:
        multirun = open_runs(line, interrupts)
    except KeyboardInterrupt:
        server.end_early()
        return stopped(NOTHING_STARTED)
    if not run_all(multirun, line, interrupts):
        return 1
    if multirun.stopped:
        return stopped(multirun.parting)
    if multirun.statuses == [REFUSED]:
        return 2
    return int(any(status in FAILED for status in multirun.statuses))


def run_all(multirun: Multirun, line: CommandLine, interrupts: Interrupts) -> bool:
    """Let Hydra hand every job to its launcher; returns False, and says why, where the launcher gave up.

    Raises:
        UserError: for settings that the launcher refuses.
    """
    try:
        _hydra(multirun, line)
    except KeyboardInterrupt:
        multirun.stopped = True
    except Exception as error:  # a launcher of somebody else's may raise anything; ours only Hydra's OSError
        if interrupts.noted:
            multirun.stopped = True
            return True
        if isinstance(error, UserError):
            raise
        if line.foreign_launcher and _FULL_ERROR not in os.environ:
            told = error_sentence(error)[:_LONGEST]
            complain(f"hydra/launcher={line.foreign_launcher} gave up ({_FULL_ERROR}=1 shows where): {told}")
            multirun.look_up()
        elif isinstance(error, OSError):  # Hydra's own files
            complain(error_sentence(error))
        else:
            raise
        return False
    ended = multirun.stopped or multirun.statuses == [REFUSED]
    if line.multirun and not (multirun.launched or ended):
        multirun.look_up()
    return True


def _make_multirun(
    line: CommandLine, interrupts: Interrupts, typed: list[str], on_mistake: Callable[[str], None]
) -> Multirun:
    jobs, search, grow = _check_jobs(line), line.search, line.growing
    common = line.config_dir, interrupts.check, typed, on_mistake
    if grow is not None:
        from losslab.sweeps.deciding import Deciding  # with scipy, which no other sweep needs

        return Deciding(jobs, grow.rule, grow.of_hydra, *common)
    if search is None:
        return Multirun(jobs, line.config_dir, partial(_run_job, line), interrupts.check, typed, on_mistake)
    return Tuning(jobs, search.spaces, search.settings, search.of_hydra, *common)


def _check_jobs(line: CommandLine) -> dict[tuple[str, ...], Checked]:
    """Compose and check every job, each sentence once, before any starts."""
    of_hydra: list[str] = []
    if line.multirun:
        overrides, of_hydra = expand(line)
    else:
        if launching := [o for o in line.overrides if o.lstrip("+~").startswith(_OF_MULTIRUNS)]:
            raise UserError(f"{launching[0]} is about a multirun: add -m, or leave it out")
        line.overrides = single_job(line.overrides)
        overrides = [line.overrides]
    jobs: dict[tuple[str, ...], Checked] = {}
    notes: dict[str, None] = {}
    for job in working(overrides, "checking", len(overrides)) if len(overrides) > _TOLD else overrides:
        config, choices = _checked(of_hydra + job, line)
        if note := check_warmup(config, job):
            notes[note] = None
        jobs[tuple(job)] = config, choices
    for folder in {Path(config["output_dir"]) / config["name"] for config, _ in jobs.values()}:
        check_folder(folder)
    texts = [config["data"] for config, _ in jobs.values() if config["data"].get("_target_") == _TEXT]
    named = {(key, data.get(key)) for data in texts for key in ("path", "val_path", "test_path")}
    for key, path in sorted((key, str(path)) for key, path in named if path):
        find_files(path, f"data.{key}")
    for note in notes:
        say(f"note: {note}")
    keys = [override.partition("=")[0] for override in line.overrides]
    if line.search is not None:  # an experiment may search keys that nobody types
        keys += [bare(one.key) for space in line.search.spaces for one in space.dimensions]
    if forgotten := find_forgotten(jobs.values(), keys):
        ask(line, forgotten.sentence, "start them?" if line.multirun else "start it?", forgotten.way_out)
    return jobs


def _checked(job: list[str], line: CommandLine) -> Checked:
    try:
        config, choices = compose_job(job, line.config_dir)
        checked = check_run(config)
        check_path(checked, choices, line.config_dir)
        return checked, choices
    except UserError as error:
        if line.search is None:
            raise
        raise UserError(with_hint(str(error), line.search.spaces)) from None


def _run_job(line: CommandLine, config: DictConfig, prefix: str) -> str:
    """One job in this process; a failure is reported at once and ends only this job. Returns its status."""
    overrides = list(HydraConfig.get().overrides.task)
    choices = own_choices(HydraConfig.get().runtime.choices)
    if line.multirun:
        say(f"{prefix}{' '.join(overrides)}")
    from losslab.training.process.start import start  # torch and Lightning take seconds: after all checks

    try:
        outcome = start(
            check_run(to_plain(config)),
            defaults=compose_plain(group_choices(overrides), line.config_dir),
            choices=choices,
            overrides=overrides,
        )
    except UserError as error:
        complain(str(error))
        return REFUSED
    except OSError as error:  # a disk that is full before the run could take note of it
        complain(error_sentence(error))
        return "failed"
    if outcome.status == "skipped":
        say(f"already {outcome.record.status}: {outcome.folder}{_headline(outcome.record)}")
    elif outcome.status != "completed":
        complain(describe_end(outcome))
    return outcome.status


def describe_end(outcome: Outcome) -> str:
    """One line for a run that did not complete: why, and what to do."""
    if outcome.status == "interrupted":
        step = outcome.record.step
        kept = f"saved at step {step}" if step else "nothing was saved yet"
        return f"{outcome.record.error}; {kept}: the same command, or losslab resume {outcome.folder}, continues it"
    return f"{outcome.status}: {outcome.record.error}; see {outcome.folder.log}"


def _headline(record: Record) -> str:
    headline = record.headline("test")
    return f" ({headline})" if headline else ""


def _hydra(task: Any, line: CommandLine) -> None:
    """Run Hydra's own command line on what was typed."""
    argv, full = sys.argv, os.environ.get(_FULL_ERROR)
    sys.argv = ["losslab train", *line.argv()]
    os.environ[_FULL_ERROR] = "1"  # Hydra raises errors instead of printing them and exiting
    try:
        with _heeded_failures():
            hydra_main(config_path=str(conf_dir()), config_name=CONFIG_NAME, version_base="1.3")(task)()
    finally:
        sys.argv = argv
        os.environ.pop(_FULL_ERROR)
        if full is not None:
            os.environ[_FULL_ERROR] = full


@contextmanager
def _heeded_failures() -> Iterator[None]:
    """Let a failed run be read from its JobReturn as from a completed one: Hydra's sweeper would raise the failure, and
    end the sweep with a traceback, where the run has been reported and recorded. Whatever else failed is raised."""
    kind: Any = JobReturn
    hydras = kind.return_value

    def read(one: JobReturn) -> Any:
        return one._return_value if isinstance(one._return_value, RunFailed) else hydras.fget(one)

    kind.return_value = property(read, hydras.fset)
    try:
        yield
    finally:
        kind.return_value = hydras
