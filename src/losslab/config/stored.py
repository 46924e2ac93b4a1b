"""Configurations out of run folders and checkpoints: what nobody typed is checked before anything of it is used."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import yaml

from losslab.config.check import check_run
from losslab.config.nearest import nearest
from losslab.config.schema import CheckpointsConfig, LoggerConfig, RunConfig, TrainerConfig
from losslab.config.trust import check_trusted
from losslab.errors import UserError

INPUTS = ("data.path", "data.tokenizer")
"""Where inputs lie may change; what they hold belongs to the run, and is compared."""

_SECTIONS: dict[str, type] = {
    "": RunConfig,
    "trainer": TrainerConfig,
    "checkpoints": CheckpointsConfig,
    "logger": LoggerConfig,
}


def open_config(config: dict[str, Any], trust: list[str]) -> dict[str, Any]:
    """A configuration that losslab stored, checked. Imports none of the classes it names.

    Raises:
        UserError: when it names code that nobody vouched for, or is not whole.
    """
    check_trusted(config, trust)
    return check_run(_filled(config))


def override(config: dict[str, Any], overrides: list[str], allowed: tuple[str, ...]) -> dict[str, Any]:
    """Replace single keys of a stored configuration by KEY=VALUE as typed. Raises UserError for keys not `allowed`."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{text!r} cannot be read: write KEY=VALUE, such as data.path=book.txt")
        if key not in allowed:
            raise UserError(f"{key!r} cannot be changed here, it belongs to the run: {nearest(key, allowed)}")
        section, _, last = key.partition(".")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        if key in INPUTS and parsed is not None:
            parsed = str(Path(value).expanduser().absolute()) if value not in ("bpe", "bytes") else value
        config = {**config, section: {**config[section], last: parsed}}
    return config


def moved_inputs(config: dict[str, Any], folder: Path, made_at: str | None) -> dict[str, Any]:
    """Where a run's folder was moved together with its text, the text's path as seen from its new place.

    Args:
        made_at: the folder's place when the run was made (`provenance.folder`).
    """
    data = dict(config["data"])
    for key in (name.rpartition(".")[2] for name in INPUTS):
        path = data.get(key)
        if made_at is None or not isinstance(path, str) or not Path(path).is_absolute() or Path(path).exists():
            continue
        candidate = (folder.absolute() / os.path.relpath(path, made_at)).resolve()
        if candidate.exists():
            data[key] = str(candidate)
    return {**config, "data": data}


def _filled(config: dict[str, Any]) -> dict[str, Any]:
    """Keys that this version has and the one that wrote the configuration had not, at their defaults."""
    filled = dict(config)
    for name, kind in _SECTIONS.items():
        section = filled if not name else filled.get(name, {})
        if not isinstance(section, dict):
            continue  # check_run names it
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING:
                section = {field.name: field.default} | section
        filled = section if not name else {**filled, name: section}
    return filled
