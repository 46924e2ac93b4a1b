"""Compose configurations ahead of Hydra's own run, so that every mistake is one sentence before any job starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from losslab.config import schema
from losslab.config.mistakes import explain, flat_keys
from losslab.config.paths import check_config_dir, conf_dir
from losslab.errors import UserError

CONFIG_NAME = "train"
_HYDRA = ("hydra.", "hydra/")
_WRITTEN_OUT = ("'", '"', "[", "{", "$", "=")
_SEPARATOR = "data.separator"
"""Text of any kind, which is never an axis."""
_MOST_VALUES = 100_000


def quoted(override: str) -> str:
    """KEY=VALUE as Hydra can read it: its own words need no quotes, and paths of run folders hold an equals sign."""
    key, _, value = override.partition("=")
    if key == _SEPARATOR and value[:1] not in ("'", '"') and value not in ("", "null"):
        return f"{key}='{value.replace(chr(39), chr(92) + chr(39))}'"
    if "=" not in value or value[:1] in _WRITTEN_OUT or "(" in value:
        return override
    return f"{key}=" + ",".join(f"'{part}'" if "=" in part and "'" not in part else part for part in value.split(","))


def typed(override: str) -> tuple[str, Any]:
    """KEY=VALUE as Hydra reads it. Raises UserError where it cannot."""
    (parsed,) = _parse([override], None)
    return parsed.key_or_group, parsed.value()


def compose_plain(overrides: list[str], config_dir: Path | None = None, *, resolve: bool = True) -> dict[str, Any]:
    """The composed configuration as plain, resolved values. Raises UserError for every mistake Hydra can see."""
    return to_plain(_compose(overrides, config_dir), config_dir, resolve=resolve)


def to_plain(config: DictConfig, config_dir: Path | None = None, *, resolve: bool = True) -> dict[str, Any]:
    """Resolve interpolations, and turn OmegaConf's nodes into dicts, lists and numbers."""
    try:
        plain = OmegaConf.to_container(config, resolve=resolve)
    except OmegaConfBaseException as error:
        raise explain(error, set()) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@dataclass(frozen=True)
class Multirun:
    """A multirun, before its jobs are composed."""

    overrides: list[str]
    """As typed, behind those of the experiment's sweeper, without Hydra's own."""
    hydra_overrides: list[str]
    """Of Hydra's own keys and groups; no job differs in them."""
    count: int
    """Of the combinations."""
    launcher: str
    """The choice of hydra/launcher."""
    settings: dict[str, Any]
    """The keys of hydra.launcher."""
    target: str
    """The launcher's class."""


def open_multirun(overrides: list[str], config_dir: Path | None = None) -> Multirun:
    """What a multirun will be, counted and not yet expanded.

    Raises:
        UserError: for a sweeper that losslab does not work with, and for values that cannot be counted.
    """
    fixed = [o.input_line or "" for o in _parse(overrides, config_dir) if not o.is_sweep_override()]
    hydra = _compose(fixed, config_dir, with_hydra=True).hydra
    if not (hydra.sweeper and hydra.launcher):
        raise UserError("hydra.sweeper and hydra.launcher cannot be null: leave them out, or choose hydra/launcher=…")
    if not hydra.sweeper._target_.endswith("BasicSweeper"):
        raise UserError("losslab's multirun works with Hydra's basic sweeper; leave out hydra/sweeper")
    if hydra.sweeper.get("max_batch_size") is not None:
        raise UserError("leave out hydra.sweeper.max_batch_size: hydra.launcher.slots says how many runs go at once")
    swept = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
    own: list[str] = []
    of_hydra: list[str] = []
    values: dict[str, int] = {}
    for override in _parse(swept + overrides, config_dir):
        if override.key_or_group.startswith(_HYDRA):
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: a multirun has one value of Hydra's own keys, for all runs")
            of_hydra.append(override.input_line or "")
            continue
        own.append(override.input_line or "")
        key = override.get_key_element()
        if key == "experiment" and override.is_sweep_override():
            raise UserError(f"{override.input_line}: an experiment may be a multirun of its own; start one at a time")
        if override.is_sweep_override() and override.is_discrete_sweep():
            values[key] = sum(1 for _ in islice(override.sweep_string_iterator(), _MOST_VALUES + 1))
            if values[key] > _MOST_VALUES:
                raise UserError(f"{key} has more than {_MOST_VALUES:,} values")
            if not values[key]:
                raise UserError(f"{override.input_line} is no value at all: there is nothing to run")
        else:
            values[key] = 1
    settings = OmegaConf.to_container(hydra.launcher, resolve=True)
    assert isinstance(settings, dict)
    target = str(settings.pop("_target_"))
    choice = hydra.runtime.choices["hydra/launcher"]
    return Multirun(own, of_hydra, math.prod(values.values()), choice, {str(k): v for k, v in settings.items()}, target)


def job_overrides(multirun: Multirun, config_dir: Path | None = None) -> list[list[str]]:
    """The overrides of each job, in Hydra's order."""
    try:
        jobs: list[list[str]] = BasicSweeper.split_arguments(_parse(multirun.overrides, config_dir), None)[0]
    except HydraException as error:
        raise explain(error, set()) from None
    return jobs


def compose_job(overrides: list[str], config_dir: Path | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """The composed configuration as plain, resolved values, and the choices: group → the file chosen in it.

    Raises:
        UserError: for every mistake that Hydra can see.
    """
    config = _compose(overrides, config_dir, with_hydra=True)
    choices = own_choices(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return to_plain(config, config_dir), choices


def own_choices(choices: Any) -> dict[str, str]:
    """Those of our own groups."""
    return {str(k): str(v) for k, v in choices.items() if v is not None and not str(k).startswith("hydra/")}


def is_multirun(overrides: list[str], config_dir: Path | None = None) -> bool:
    """Whether the configuration itself asks for a multirun (hydra.mode=MULTIRUN, typed or in an experiment)."""
    fixed = [o.input_line or "" for o in _parse(overrides, config_dir) if not o.is_sweep_override()]
    mode = _compose(fixed, config_dir, with_hydra=True).hydra.mode
    return mode is not None and mode.name == "MULTIRUN"


def group_choices(overrides: list[str]) -> list[str]:
    """Those of the overrides that choose a file of a group (loss=square, model/size=micro, experiment=…)."""
    chosen = []
    for override in _parse(overrides, None):
        if "." not in override.key_or_group and (conf_dir() / override.key_or_group).is_dir():
            chosen.append(override.input_line or "")
    return chosen


def _config_loader(config_dir: Path | None) -> ConfigLoaderImpl:
    """Knows the groups' files, for overrides such as loss=glob(*)."""
    search_path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        search_path.append("command-line", f"file://{config_dir.resolve()}")
    return ConfigLoaderImpl(config_search_path=search_path)


def _parse(overrides: list[str], config_dir: Path | None) -> list[Override]:
    parser = OverridesParser.create(_config_loader(config_dir))
    parsed = []
    for override in overrides:
        try:
            parsed.extend(parser.parse_overrides([override]))
        except HydraException:
            raise UserError(
                f"{override!r} cannot be read: write KEY=VALUE, and quote what the shell would change"
            ) from None
    return parsed


def _compose(overrides: list[str], config_dir: Path | None, *, with_hydra: bool = False) -> DictConfig:
    if config_dir is not None:
        check_config_dir(config_dir)
        quoted = str(config_dir.resolve()).replace("\\", "\\\\").replace("'", "\\'")
        overrides = [*overrides, f"hydra.searchpath=['file://{quoted}']"]
    schema.register()
    # hydra.main may be running (a job asks for its defaults); compose needs the global state for itself.
    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            try:
                return compose(CONFIG_NAME, overrides=overrides, return_hydra_config=with_hydra)
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                composed = _compose_groups(overrides)
                launcher = OmegaConf.to_container(composed.hydra.launcher, resolve=False)
                with open_dict(composed):
                    composed.hydra = {"launcher": launcher}
                defaults = OmegaConf.to_container(composed, resolve=False)
                groups = {path.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*") if path.is_dir()}
                raise explain(error, flat_keys(defaults) | groups) from None
    finally:
        GlobalHydra.instance().hydra = state


def _compose_groups(overrides: list[str]) -> DictConfig:
    """The defaults that a mistake is measured against: of the chosen groups, where they can be composed."""
    chosen = [o for o in overrides if o.startswith("hydra.searchpath=")] + group_choices(overrides)
    try:
        return compose(CONFIG_NAME, overrides=chosen, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError):
        return compose(CONFIG_NAME, return_hydra_config=True)
