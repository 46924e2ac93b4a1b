"""Forgotten flags: new runs that differ from all earlier ones of their folder in what nobody typed. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losslab.config.binding import OF_MODEL
from losslab.config.check import resolve_budget
from losslab.config.flags import debug_of, needs_passes
from losslab.config.identity import NOT_IDENTITY, flatten, without
from losslab.config.schema import RunConfig
from losslab.config.words import bare
from losslab.errors import UserError
from losslab.run_folder import runs_of_sweep

_COMPARED = ("seed", "seeds.", "loss.")
"""Keys in which the runs of one folder are meant to differ."""
_DERIVED: dict[str, tuple[str, ...]] = {
    "data.context": ("model.context",),
    "trainer.val_check_interval": ("trainer.max_steps",),
    "trainer.interim_eval_tokens": (
        *("trainer.max_steps", "trainer.val_check_interval"),
        *("data.batch_size", "data.context", "model.context"),
    ),
}
"""Keys that follow from others unless they are given."""
_TIED, _LM = "model.tie_embeddings", "losslab.tasks.lm.LanguageModeling"
_FILLED = ("model.context", "model.head", "data.context", "data.special_tokens")
"""Keys that a model's files fill in where they are null (`complete_model`)."""
_RESULTS = ("completed", "diverged", "running", "interrupted")
_SHOWN = 3
Choices = dict[str, str]
"""Group → the file chosen in it."""


@dataclass(frozen=True)
class Forgotten:
    """New runs that no earlier one of their folder is like."""

    sentence: str
    way_out: str


@dataclass(frozen=True)
class _Run:
    settings: dict[str, Any]
    choices: Choices


def find_forgotten(jobs: Iterable[tuple[dict[str, Any], Choices]], typed: Iterable[str]) -> Forgotten | None:
    """Compare new runs with those that their folder has, where the folder has a name of its own.

    A key that is typed is meant, and so are those of a file that is chosen for the first time: they may have values
    that no earlier run has.

    Args:
        jobs: all new runs: the configuration after `check_run`, and the choices.
        typed: the keys of the command.
    """
    by_folder: dict[Path, list[_Run]] = {}
    for config, choices in jobs:
        if config["name"] != RunConfig.name and not debug_of(config):
            run = _Run(_settings(config), choices)
            by_folder.setdefault(Path(config["output_dir"]) / config["name"], []).append(run)
    for folder, new_runs in by_folder.items():
        old_runs = _earlier(folder)
        new, old = [run.settings for run in new_runs], [run.settings for run in old_runs]
        differing = _differing(new, old, _meant(new_runs, old_runs, {bare(key) for key in typed})) if old else []
        if differing:
            told = ", ".join(f"{key} ({_shown(old, key)}; now {_shown(new, key)})" for key in differing[:_SHOWN])
            more = f" and {len(differing) - _SHOWN} other keys" if len(differing) > _SHOWN else ""
            return Forgotten(
                f"all {len(old)} runs in {folder} have other values than the new ones for {told}{more}"
                if len(old) > 1
                else f"the run in {folder} has other values than the new ones for {told}{more}",
                "give the same again, another name=…, or --yes if you mean it",
            )
    return None


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide a run's numbers, by dotted key."""
    data = config["data"]
    unknown = data.get("context", 0) is None
    if unknown:
        config = {**config, "data": (data := {**data, "context": 1})}
    sizes = [data.get("batch_size"), *([data["context"]] if "context" in data else [])]
    if all(isinstance(size, int) and size > 0 for size in sizes) and not needs_passes(config["trainer"]):
        config = resolve_budget(config)
    settings = flatten(without(config, NOT_IDENTITY))
    left_open = [key for key in _FILLED if settings.get(key, 0) is None]
    left_open += ["data.context", "trainer.interim_eval_tokens"] if unknown else []
    left_open += ["data.tokenizer"] if data.get("tokenizer") == OF_MODEL else []
    settings = {key: value for key, value in settings.items() if key not in left_open}
    if settings.get(_TIED, True) is None:  # the task decides, whose class is not imported here
        del settings[_TIED]
        if settings["task._target_"] == _LM:
            settings[_TIED] = True
    return settings


def _earlier(folder: Path) -> list[_Run]:
    """The runs that are there and have computed something."""
    found = []
    for run in runs_of_sweep(folder):
        try:
            record, config = run.record(), run.config()
            if record.status in _RESULTS and not debug_of(config):
                found.append(_Run(_settings(config), record.provenance.get("choices") or {}))
        except (UserError, KeyError, TypeError, AttributeError):
            continue  # reported where it is in the way
    return found


def _meant(new: list[_Run], old: list[_Run], typed: set[str]) -> set[str]:
    """The keys that are typed, and the sections of which a file is chosen that no earlier run has."""
    meant = set(typed)
    for group in (key for key in typed if "." not in key.partition("@")[0]):
        before = {run.choices.get(group) for run in old}
        if any(run.choices.get(group) not in before for run in new):
            meant.add(f"{group.partition('/')[0]}.")
    return meant


def _differing(new: list[dict[str, Any]], old: list[dict[str, Any]], meant: set[str]) -> list[str]:
    """The keys that all of them have, in whose value no new run is like an earlier one."""
    keys = [key for key in new[0] if all(key in settings for settings in (*new, *old))]
    differing = []
    for key in keys:
        if key.startswith(_COMPARED) or _is_meant(key, meant):
            continue
        before = [_plain(settings[key]) for settings in old]
        if not any(_plain(settings[key]) in before for settings in new):
            differing.append(key)
    return [
        key
        for key in differing
        if not any(cause in differing or _is_meant(cause, meant) for cause in _DERIVED.get(key, ()))
    ]


def _is_meant(key: str, meant: set[str]) -> bool:
    if key == "trainer.max_steps" and not meant.isdisjoint(("trainer.max_tokens", "trainer.max_epochs")):
        return True
    return key in meant or f"{key.partition('.')[0]}." in meant


def _plain(value: Any) -> Any:
    """Lists as tuples, and a path as it is seen from anywhere."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return str(Path(value).expanduser().absolute()) if isinstance(value, str) and Path(value).exists() else value


def _shown(runs: list[dict[str, Any]], key: str) -> str:
    values = list(dict.fromkeys(str(settings[key]) for settings in runs))
    return " or ".join(values[:_SHOWN]) + (" or others" if len(values) > _SHOWN else "")
