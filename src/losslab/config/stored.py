"""Configurations out of run folders and checkpoints: what nobody typed is checked before anything of it is used."""

from __future__ import annotations

import dataclasses
import glob
import os
import typing
from pathlib import Path
from typing import Any

import yaml

from losslab.choices import conf_dir
from losslab.config.check import check_run
from losslab.config.identity import ADDED_LATER, with_later
from losslab.config.mistakes import flat_keys, nearest_key
from losslab.config.nearest import nearest
from losslab.config.schema import CheckpointsConfig, RegularizersConfig, RunConfig, SeedsConfig, TrainerConfig
from losslab.config.trust import check_stored, check_trusted
from losslab.errors import UserError

PATHS = (
    *("data.path", "data.val_path", "data.test_path"),
    *("data.source", "data.target", "data.val_source", "data.val_target", "data.test_source", "data.test_target"),
    *("data.val_references", "data.test_references"),
)
"""Paths of data. That under data.source may be a node of keys instead."""
INPUTS = (*PATHS, "data.tokenizer")
"""Paths of inputs, which may change; their content belongs to the run, and is compared."""
LOGGERS = "loggers"
"""The key that another choice of loggers is given to."""
ORIGINS = ("continue_from", "init_from")
"""Paths of a run's origin, which may change too, until the run has a checkpoint of its own."""

_RESOLVED = ("max_steps", "val_check_interval", "interim_eval_tokens")
_SECTIONS: dict[str, type] = {
    "": RunConfig,
    "regularizers": RegularizersConfig,
    "trainer": TrainerConfig,
    "checkpoints": CheckpointsConfig,
    "seeds": SeedsConfig,
}


def open_config(config: dict[str, Any], trust: list[str], place: Path) -> dict[str, Any]:
    """A configuration that losslab stored, checked. Imports none of the classes it names.

    Args:
        trust: the classes outside losslab that it may name.
        place: where it was stored, for the messages.

    Raises:
        UserError: when it names code that nobody vouched for, or is not whole.
    """
    try:
        check_trusted(config, trust)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return filled(config, place)


def filled(config: dict[str, Any], place: Path) -> dict[str, Any]:
    """A stored configuration with the keys that this version has and the one that wrote it had not, at the values that
    give the results of then. (Those of components are the defaults of their constructors, for the same reason.)

    Raises:
        UserError: when it is not whole, or losslab cannot have written it.
    """
    try:
        check_stored(config)
        config = check_run(_with_defaults(config))
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    missing = [key for key in _RESOLVED if config["trainer"][key] is None]
    if missing:
        raise UserError(f"{place}: trainer.{missing[0]} is missing, which every stored configuration has")
    return config


def override(config: dict[str, Any], overrides: list[str], allowed: tuple[str, ...]) -> dict[str, Any]:
    """Replace single keys of a stored configuration by KEY=VALUE as typed. Raises UserError for keys not `allowed`."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{text!r} cannot be read: write KEY=VALUE, such as data.path=book.txt")
        if LOGGERS in allowed and key == LOGGERS:
            config = {**config, LOGGERS: _chosen_loggers(value)}
            continue
        if LOGGERS in allowed and key in flat_keys({LOGGERS: config[LOGGERS]}):
            _, name, last = key.split(".", 2)
            node = {**config[LOGGERS][name], last: _parse(key, value)}
            config = {**config, LOGGERS: {**config[LOGGERS], name: node}}
            continue
        if key not in allowed:
            known = flat_keys(config) | set(allowed)
            if key not in known:
                raise UserError(f"there is no key {key!r}: {nearest_key(key, known)}")
            raise UserError(
                f"{key!r} cannot be changed here, it belongs to the run; what can be is {', '.join(sorted(allowed))}"
            )
        section, _, last = key.rpartition(".")
        if section:
            config = {**config, section: {**config[section], last: _parse(key, value)}}
        else:
            config = {**config, key: _parse(key, value)}
        if key == "data.path" and "corpus" in config["data"]:
            config["data"]["corpus"] = None  # a text stands in its place
    return config


def _chosen_loggers(value: str) -> dict[str, Any]:
    """The nodes of `tensorboard`, or of `[tensorboard,wandb]`. Raises UserError for one that is not shipped."""
    shipped = {path.stem: path for path in (conf_dir() / LOGGERS).glob("*.yaml")}
    nodes: dict[str, Any] = {}
    for name in filter(None, (part.strip() for part in value.strip("[]").split(","))):
        if name not in shipped:
            raise UserError(f"there is no {LOGGERS} named {name!r}: {nearest(name, sorted(shipped))}")
        nodes |= yaml.safe_load(shipped[name].read_text(encoding="utf-8"))
    return nodes


def _parse(key: str, value: str) -> Any:
    if key == "data.separator":
        return None if value in ("", "null") else value
    if key in (*INPUTS, *ORIGINS, "loss.teacher"):
        if value in ("bpe", "bytes", ""):
            return value
        if value == "null" and key in PATHS and key != "data.path":
            return None
        if value.startswith("["):
            return absolute([part.strip() for part in value.strip("[]").split(",")])
        return absolute(value)
    if typing.get_type_hints(TrainerConfig).get(key.removeprefix("trainer.")) is str:
        return value  # precision=32 is a name
    try:
        return yaml.safe_load(value)
    except (ValueError, yaml.YAMLError):
        return value


def absolute(path: str | list[str]) -> str | list[str]:
    """A path, or each of several, as seen from anywhere."""
    if isinstance(path, list):
        return [str(absolute(part)) for part in path]
    home = os.path.expanduser(path)  # noqa: PTH111 (where there is no such home, it leaves the path as it is)
    return str(Path(home).absolute())


def with_inputs_of(stored: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's configuration with the inputs of its run's, whose paths may have been changed since it was
    written."""
    keys = [key for name in INPUTS if (key := name.rpartition(".")[2]) in config["data"]]
    return {**config, "data": config["data"] | {key: stored["data"].get(key) for key in keys}}


def moved_inputs(config: dict[str, Any], folder: Path, made_at: str | None, overrides: list[str]) -> dict[str, Any]:
    """The text's path as seen from the new place of a run's folder, where both were moved together.

    Args:
        made_at: the folder's place when the run was made (`provenance.folder`).
        overrides: inputs that are given again are not looked for.

    Raises:
        UserError: when a file is in neither place.
    """
    data = dict(config["data"])
    given = {text.partition("=")[0] for text in overrides}
    for name in (name for name in INPUTS if name not in given):
        key = name.rpartition(".")[2]
        path = data.get(key)
        if isinstance(path, list):
            data[key] = [_moved(part, folder, made_at, name) for part in path]
        elif isinstance(path, str):
            data[key] = _moved(path, folder, made_at, name)
    config = {**config, "data": data}
    for key in ORIGINS:
        path = config[key]
        if path is not None and made_at and not Path(path).exists():
            moved = os.path.normpath(folder.absolute() / os.path.relpath(path, made_at))
            config[key] = (
                moved if Path(moved).exists() else path
            )  # needed, and missed, only where the run has yet to begin
    return config


def _moved(path: str, folder: Path, made_at: str | None, name: str) -> str:
    """The path of an input, or the one that lies as it did beside the run's folder. Raises UserError without either."""
    if not Path(path).is_absolute() or _exists(path):
        return path
    moved = os.path.normpath(folder.absolute() / os.path.relpath(path, made_at)) if made_at else path
    if not _exists(moved):
        raise UserError(f"{path}, from which this run was made, is not there: say where it lies now, {name}=…")
    return moved


def _exists(path: str) -> bool:
    return bool(glob.glob(path, recursive=True)) or Path(path).exists()  # noqa: PTH207 (an absolute pattern)


def _with_loggers(config: dict[str, Any]) -> dict[str, Any]:
    """Before there were `loggers`, TensorBoard was the only one, and logger.enabled said whether it was used."""
    if LOGGERS in config:
        return config
    whole = dict(config)
    before = whole.pop("logger", {})
    if not isinstance(before, dict) or not isinstance(before.get("enabled", True), bool):
        raise UserError(f"logger must hold keys of its own (enabled: true or false), not {before!r}")
    if unknown := sorted(map(str, before.keys() - {"enabled"})):
        raise UserError(f"there is no key 'logger.{unknown[0]}': logger has enabled")
    return {**whole, LOGGERS: _chosen_loggers("tensorboard" if before.get("enabled", True) else "none")}


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    whole = _with_loggers(config)
    for name, kind in _SECTIONS.items():
        section = whole if not name else whole.get(name, {})
        if not isinstance(section, dict):
            continue  # check_run names it
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING:
                key = f"{name}.{field.name}" if name else field.name
                section = {field.name: ADDED_LATER.get(key, field.default)} | section
        whole = section if not name else {**whole, name: section}
    filled_in: dict[str, Any] = with_later(whole)
    return filled_in
