"""Words behind `losslab train`: flags are split from Hydra's overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from losslab.config.auto_seeds import AutoSeeds
from losslab.config.foreign import serves_instead
from losslab.config.nearest import nearest
from losslab.config.search import StudySpace
from losslab.config.words import ready
from losslab.errors import UserError
from losslab.sweeps.settings import SearchSettings

_HYDRA_FLAGS = {"--help", "-h", "--hydra-help", "--resolve"}
_VALUED: dict[str, tuple[str, ...]] = {
    "--cfg": ("job", "hydra", "all"),
    "--package": (),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}


@dataclass(frozen=True)
class Searched:
    """A search, with hydra/sweeper=optuna."""

    spaces: list[StudySpace]
    settings: SearchSettings
    of_hydra: list[str]
    """Overrides of Hydra's own keys."""


@dataclass(frozen=True)
class Growing:
    """A multirun that adds seeds, with seed=auto."""

    rule: AutoSeeds
    of_hydra: list[str]
    """Overrides of Hydra's own keys."""


@dataclass
class CommandLine:
    """The words after `losslab train`."""

    overrides: list[str] = field(default_factory=list)
    hydra_flags: list[str] = field(default_factory=list)
    """Flags that make Hydra print something instead of running."""
    multirun: bool = False
    yes: bool = False
    """A very large multirun is meant, and so are other settings than those of the runs that are there."""
    called: bool = False
    """The words come from a program: nobody is asked, and no job trains in its process."""
    print_jobs: bool = False
    """A shell line for each missing run of a multirun is printed, and nothing runs."""
    config_dir: Path | None = None
    foreign_launcher: str = ""
    """The launcher of somebody else's that a multirun has, if it has one."""
    search: Searched | None = None
    """The search of a multirun, if it has one."""
    growing: Growing | None = None
    """The rule by which a multirun adds seeds, if it does."""
    for_hydra: list[str] | None = None
    """Overrides for Hydra instead of `overrides`: of a multirun, the words that all jobs share."""

    def argv(self) -> list[str]:
        """Arguments for Hydra, whose parser expects flags before overrides."""
        flags = list(self.hydra_flags)
        flags += ["--multirun"] if self.multirun else []
        flags += ["--config-dir", str(self.config_dir)] if self.config_dir is not None else []
        return [*flags, *(self.overrides if self.for_hydra is None else self.for_hydra)]


def parse(arguments: list[str]) -> CommandLine:
    """Split flags from overrides, wherever they stand. Raises UserError for a flag that there is not."""
    line = CommandLine()
    rest = iter(arguments)
    for argument in rest:
        flag, _, attached = argument.partition("=")
        if flag in ("-m", "--multirun"):
            line.multirun = True
        elif argument == "--yes":
            line.yes = True
        elif argument == "--print-jobs":
            line.print_jobs = True
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
            hint = serves_instead(key) or hint
            raise UserError(f"there is no flag {flag!r}; {hint}")
        else:
            line.overrides.append(ready(argument))
    if "--resolve" in line.hydra_flags and "--cfg" not in line.hydra_flags:
        raise UserError("--resolve says how --cfg prints the configuration: write --cfg job --resolve")
    if line.multirun and line.hydra_flags:
        raise UserError(f"{line.hydra_flags[0]} shows one run: leave out -m, and give each key one value")
    return line


def _value(flag: str, value: str) -> str:
    if not value or value.startswith("-"):
        raise UserError(f"{flag} needs a value" + (", the folder of your own yaml files" if "dir" in flag else ""))
    return value
