"""Compose configurations ahead of Hydra's own run, so that every mistake is one sentence before any job starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from losslab.choices import conf_dir
from losslab.config import schema
from losslab.config.mistakes import explain, flat_keys
from losslab.config.paths import check_config_dir
from losslab.config.words import bare, is_group, right_spelling
from losslab.errors import UserError

CONFIG_NAME = "train"
_OF_HYDRA = ("launcher", "sweeper")
"""Hydra's own sections of which a mistake names the nearest key."""


def typed(override: str) -> tuple[str, Any]:
    """KEY=VALUE as Hydra reads it. Raises UserError where it cannot."""
    (parsed,) = parse_overrides([override], None)
    return parsed.key_or_group, parsed.value()


def compose_plain(overrides: list[str], config_dir: Path | None = None, *, resolve: bool = True) -> dict[str, Any]:
    """The composed configuration as plain, resolved values. Raises UserError for every mistake Hydra can see."""
    return to_plain(compose_config(overrides, config_dir), resolve=resolve)


def to_plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """Resolve interpolations, and turn OmegaConf's nodes into dicts, lists and numbers."""
    try:
        plain = OmegaConf.to_container(config, resolve=resolve)
    except OmegaConfBaseException as error:
        raise explain(error, set()) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def compose_job(overrides: list[str], config_dir: Path | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """The composed configuration as plain, resolved values, and the choices: group → the file chosen in it.

    Raises:
        UserError: for every mistake that Hydra can see.
    """
    config = compose_config(overrides, config_dir, with_hydra=True)
    choices = own_choices(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return to_plain(config), choices


def own_choices(choices: Any) -> dict[str, str]:
    """The choices of our own groups."""
    return {str(k): str(v) for k, v in choices.items() if v is not None and not str(k).startswith("hydra/")}


def group_choices(overrides: list[str]) -> list[str]:
    """Overrides that choose a file of a group (loss=square, model/size=micro, experiment=…); and data.context, which
    the shipped data takes from the model: one of a person's own may have none. Without debug=…, whose keys are what a
    run differs in."""
    chosen = []
    for override in parse_overrides(overrides, None):
        key = override.key_or_group
        if key == "debug":
            continue
        if key == "data.context" or ("." not in key and (conf_dir() / key).is_dir()):
            chosen.append(override.input_line or "")
    return chosen


def _config_loader(config_dir: Path | None) -> ConfigLoaderImpl:
    """Make a loader of the groups' files, for overrides such as loss=glob(*)."""
    search_path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        search_path.append("command-line", f"file://{config_dir.resolve()}")
    return ConfigLoaderImpl(config_search_path=search_path)


def parse_overrides(overrides: list[str], config_dir: Path | None) -> list[Override]:
    parser = OverridesParser.create(_config_loader(config_dir))
    parsed = []
    for override in overrides:
        try:
            parsed.extend(parser.parse_overrides([override]))
        except HydraException:
            right = right_spelling(override)
            how = f"write {right}" if right else "write KEY=VALUE, and quote what the shell would change"
            raise UserError(f"{override!r} cannot be read: {how}") from None
    return parsed


def compose_config(overrides: list[str], config_dir: Path | None, *, with_hydra: bool = False) -> DictConfig:
    if config_dir is not None:
        check_config_dir(config_dir)
        quoted = str(config_dir.resolve()).replace("\\", "\\\\").replace("'", "\\'")
        overrides = [*overrides, f"hydra.searchpath=['file://{quoted}']"]
    schema.register()
    added = [word for word in overrides if re.match(r"\+(?!hydra)[^=.]*/", word) and is_group(word.partition("=")[0])]
    if added:
        group = bare(added[0]).partition("/")[0]
        raise UserError(f"{added[0]} adds keys of another {group} to the chosen one: set {group}.KEY=VALUE instead")
    # hydra.main may be running (a job asks for its defaults); compose needs the global state for itself.
    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            try:
                return compose(CONFIG_NAME, overrides=overrides, return_hydra_config=with_hydra)
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                composed = _compose_groups(overrides)
                parts = {key: OmegaConf.to_container(composed.hydra[key], resolve=False) for key in _OF_HYDRA}
                with open_dict(composed):
                    composed.hydra = parts
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
