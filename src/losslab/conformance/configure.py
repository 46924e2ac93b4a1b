"""The configuration of a component on trial: that of a run with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from losslab.config.binding import bind_components
from losslab.config.check import check_run
from losslab.config.compose import compose_job, typed
from losslab.config.data_path import check_path
from losslab.config.schema import RunConfig, register
from losslab.config.words import bare, is_group, ready
from losslab.errors import UserError

KINDS = ("loss", "model", "data", "task")
_OF_LOSS = ("loss.", "loss@loss.", "regularizers.")
_SHARED = ("context",)
"""Keys of a model that other groups read: `data.context: ${model.context}`."""


def configure(kind: str, words: list[str], config_dir: Path | None) -> dict[str, Any]:
    """The bound configuration of a run with a component of `kind`.

    Args:
        words: its name in conf/KIND or the dotted path of its class, perhaps; then KEY=VALUE and GROUP=CHOICE, as
            `losslab train` takes them.

    Raises:
        UserError: for every mistake in what was typed, before anything is constructed.
    """
    register()
    name = words[0] if words and "=" not in words[0] else None
    overrides = [ready(word) for word in words[name is not None :]]
    for override in overrides:
        _check_key(kind, override)
    if name is None or "." not in name:
        config, choices = compose_job([*([] if name is None else [f"{kind}={name}"]), *overrides], config_dir)
        config = check_run(config)
        if kind == "data":
            check_path(config, choices, config_dir)
        return bind_components(config)
    own = [override for override in overrides if bare(override).startswith(f"{kind}.")]
    given = dict(typed(bare(override).removeprefix(f"{kind}.")) for override in own)
    shared = [f"{kind}.{key}={given[key]}" for key in _SHARED if kind == "model" and key in given]
    config, _ = compose_job([*(override for override in overrides if override not in own), *shared], config_dir)
    config[kind] = {"_target_": name, **given}
    return bind_components(check_run(config))


def _check_key(kind: str, override: str) -> None:
    key, equals, _ = bare(override).partition("=")
    if kind == "loss" and not key.startswith(_OF_LOSS):
        raise UserError(f"{override} is no option of the loss: they are written loss.KEY=VALUE (or regularizers.KEY)")
    if not equals and not override.startswith("~"):
        raise UserError(
            f"losslab check {kind} takes one name, and {override!r} is a second: options are written KEY=VALUE"
        )
    if "." not in key and not is_group(key) and key not in RunConfig.__dataclass_fields__:
        raise UserError(f"{override} is no option of the {kind}: they are written {kind}.{key}=…")
