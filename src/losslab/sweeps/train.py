"""`losslab train`: check everything that was typed, without torch, then let Hydra hand each job to training."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import main as hydra_main
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from losslab.config import schema
from losslab.config.check import check_run
from losslab.config.compose import CONFIG_NAME, compose_plain, group_choices, is_multirun, job_overrides, to_plain
from losslab.config.nearest import nearest
from losslab.config.paths import conf_dir
from losslab.console import complain, say
from losslab.data.sources import find_files
from losslab.errors import UserError, describe
from losslab.sweeps.trusted import append_current_folder

if TYPE_CHECKING:
    from losslab.training.start import Outcome

_HYDRA_FLAGS = {"--help", "-h", "--hydra-help", "--resolve"}
_VALUED: dict[str, tuple[str, ...]] = {
    "--cfg": ("job", "hydra", "all"),
    "--package": (),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
_FULL_ERROR = "HYDRA_FULL_ERROR"
_STOPPED = 130
"""The shell's code for a command that Ctrl-C ended."""
_REFUSED = "refused"
"""Of a job whose input was bad: it never became a run."""
_FAILED = ("failed", "interrupted", _REFUSED)


@dataclass
class CommandLine:
    """What was typed after `losslab train`."""

    overrides: list[str] = field(default_factory=list)
    hydra_flags: list[str] = field(default_factory=list)
    """Flags that make Hydra print something in place of a run."""
    multirun: bool = False
    config_dir: Path | None = None

    def argv(self) -> list[str]:
        """For Hydra, whose parser wants flags before overrides."""
        flags = list(self.hydra_flags)
        flags += ["--multirun"] if self.multirun else []
        flags += ["--config-dir", str(self.config_dir)] if self.config_dir is not None else []
        return [*flags, *self.overrides]


def parse(arguments: list[str]) -> CommandLine:
    """Split flags from overrides, wherever they stand. Raises UserError for a flag that there is not."""
    line = CommandLine()
    rest = iter(arguments)
    for argument in rest:
        flag, _, attached = argument.partition("=")
        if flag in ("-m", "--multirun"):
            line.multirun = True
        elif flag in ("--config-dir", "-cd"):
            line.config_dir = Path(_value(flag, attached or next(rest, "")))
        elif flag in _VALUED:
            value = _value(flag, attached or next(rest, ""))
            if _VALUED[flag] and value not in _VALUED[flag]:
                raise UserError(f"{flag} cannot be {value!r}: {nearest(value, _VALUED[flag])}")
            line.hydra_flags += [flag, value]
        elif argument in _HYDRA_FLAGS:
            line.hydra_flags.append(argument)
        elif argument.startswith("-"):
            key = flag.lstrip("-").replace("-", "_")
            hint = f"keys are written {key}=VALUE" if key else "losslab train --help lists them"
            raise UserError(f"there is no flag {flag!r}; {hint}")
        else:
            line.overrides.append(argument)
    if "--resolve" in line.hydra_flags and "--cfg" not in line.hydra_flags:
        raise UserError("--resolve says how --cfg prints the configuration: write --cfg job --resolve")
    if line.multirun and line.hydra_flags:
        raise UserError(f"{line.hydra_flags[0]} shows one run: leave out -m, and give each key one value")
    return line


def _value(flag: str, value: str) -> str:
    if not value or value.startswith("-"):
        raise UserError(f"{flag} needs a value" + (", the folder of your own yaml files" if "dir" in flag else ""))
    return value


def train(arguments: list[str]) -> int:
    """Run the command; returns its exit code: 0, 1 if any run failed, 130 where it was stopped between or in jobs.

    Raises:
        UserError: for a mistake in what was typed, before any job starts.
    """
    append_current_folder()  # where a person's own loss lives
    schema.register()
    line = parse(arguments)
    if line.hydra_flags:
        _hydra(lambda config: None, line)
        return 0
    line.multirun = line.multirun or is_multirun(line.overrides, line.config_dir)
    jobs = job_overrides(line.overrides, line.config_dir) if line.multirun else [line.overrides]
    for job in jobs:
        config = check_run(compose_plain(job, line.config_dir))
        _check_output(config)
        if config["data"].get("path") is not None:
            find_files(str(config["data"]["path"]))
    statuses: list[str] = []

    def run_job(config: DictConfig) -> None:
        status = _run_job(config, line, f"[{len(statuses) + 1}/{len(jobs)}] " if line.multirun else "")
        statuses.append(status)
        if line.multirun and status == "interrupted":
            raise KeyboardInterrupt  # Hydra takes any Exception for the job's own and starts the next

    try:
        _hydra(run_job, line)
    except KeyboardInterrupt:
        complain("stopped; the same command continues")
        return _STOPPED
    except OSError as error:  # Hydra's own files
        complain(describe(error))
        return 1
    if len(jobs) == 1 and statuses == [_REFUSED]:
        return 2
    if line.multirun:
        _summarise(statuses)
    return int(any(status in _FAILED for status in statuses))


def _run_job(config: DictConfig, line: CommandLine, prefix: str) -> str:
    """One job in this process; a failure is told at once and ends only this job. Returns what became of it."""
    overrides = list(HydraConfig.get().overrides.task)
    chosen = HydraConfig.get().runtime.choices
    choices = {str(k): str(v) for k, v in chosen.items() if v is not None and not str(k).startswith("hydra/")}
    if prefix:
        say(f"{prefix}{' '.join(overrides)}")
    from losslab.training.start import start  # torch and Lightning take seconds: after all checks

    try:
        outcome = start(
            check_run(to_plain(config)),
            defaults=compose_plain(group_choices(overrides), line.config_dir),
            choices=choices,
            overrides=overrides,
        )
    except UserError as error:
        complain(str(error))
        return _REFUSED
    except OSError as error:  # a disk that is full before the run could take note of it
        complain(describe(error))
        return "failed"
    if outcome.status == "skipped":
        say(f"already {outcome.record.status}: {outcome.folder}{_primary(outcome.record.yardsticks)}")
    elif outcome.status != "completed":
        complain(describe_end(outcome))
    return outcome.status


def describe_end(outcome: Outcome) -> str:
    """One line for a run that did not complete: why, and what to do."""
    if outcome.status == "interrupted":
        step = outcome.record.step
        kept = f"saved at step {step}" if step else "nothing was saved yet"
        return f"{outcome.record.error}; {kept}: the same command, or losslab resume {outcome.folder}, continues it"
    return f"{outcome.status}: {outcome.record.error}; see {outcome.folder / 'train.log'}"


def _summarise(statuses: list[str]) -> None:
    counts = Counter(statuses)
    say("runs: " + ", ".join(f"{counts[status]} {status}" for status in sorted(counts)))


def _primary(yardsticks: dict[str, Any]) -> str:
    value = yardsticks.get("best", {}).get("test/nll_scaled")
    return "" if value is None else f" (test/nll_scaled {value:.4f})"


def _check_output(config: dict[str, Any]) -> None:
    folder = Path(config["output_dir"]) / config["name"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"the output folder {folder} cannot be written: {error.strerror}") from None


def _hydra(task: Any, line: CommandLine) -> None:
    """Run Hydra's own command line on what was typed."""
    argv, full = sys.argv, os.environ.get(_FULL_ERROR)
    sys.argv = ["losslab train", *line.argv()]
    os.environ[_FULL_ERROR] = "1"  # Hydra raises what went wrong, in place of printing it and exiting
    try:
        hydra_main(config_path=str(conf_dir()), config_name=CONFIG_NAME, version_base="1.3")(task)()
    finally:
        sys.argv = argv
        os.environ.pop(_FULL_ERROR)
        if full is not None:
            os.environ[_FULL_ERROR] = full
