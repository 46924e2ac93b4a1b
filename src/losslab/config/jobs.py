"""Expand what was typed into jobs: the axes of a multirun, counted before any job is composed, or a single run."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from losslab.config.auto_seeds import AutoSeeds, is_auto_word, read_auto_seeds, refuse_auto_words
from losslab.config.axes import Axes, Words, make_axes, read_zip
from losslab.config.compose import compose_config, parse_overrides
from losslab.config.mistakes import flat_keys
from losslab.config.search import Dimension, StudySpace, make_studies, read_dimension
from losslab.config.words import ZIP, bare, choices, has_settings, is_group, ready
from losslab.errors import UserError

_HYDRA = ("hydra.", "hydra/")
_MOST_VALUES = 100_000
_BASIC, _SEARCH = "BasicSweeper", "OptunaSweeper"


@dataclass(frozen=True)
class Multirun:
    """A multirun, before its jobs are composed."""

    overrides: list[str]
    """Overrides as typed, behind those of the experiment's sweeper, without Hydra's own."""
    hydra_overrides: list[str]
    """Overrides of Hydra's own keys and groups; no job differs in them."""
    common: list[str]
    """Overrides of one value with which the configuration composes before any job is chosen."""
    count: int
    """The number of combinations."""
    notes: list[str]
    """Notes for the person before any job starts."""
    launcher: str
    """The choice of hydra/launcher."""
    settings: dict[str, Any]
    """The keys of hydra.launcher."""
    target: str
    """The launcher's class."""
    axes: Axes = field(repr=False)
    search: dict[str, Any] | None = None
    """The keys of hydra.sweeper where it searches; None: every combination runs."""
    dimensions: dict[str, Dimension] = field(default_factory=dict)
    """Searched keys and their values."""
    auto: AutoSeeds | None = None
    """The rule by which seeds are added; None where they are listed."""


def open_multirun(overrides: list[str], config_dir: Path | None = None) -> Multirun:
    """Look at a multirun that is counted and not yet expanded.

    Raises:
        UserError: for a sweeper that losslab does not work with, for values that cannot be counted, and for axes that
            fit nothing.
    """
    common, hydra = _before_any_job(overrides, config_dir)
    if not (hydra.sweeper and hydra.launcher):
        raise UserError("hydra.sweeper and hydra.launcher cannot be null: leave them out, or choose hydra/launcher=…")
    searches = hydra.sweeper._target_.endswith(_SEARCH)
    if not searches and not hydra.sweeper._target_.endswith(_BASIC):
        raise UserError("losslab's multirun works with Hydra's basic sweeper, and with hydra/sweeper=optuna, its own")
    if hydra.sweeper.get("max_batch_size") is not None:
        raise UserError("leave out hydra.sweeper.max_batch_size: hydra.launcher.slots says how many runs go at once")
    swept = [ready(f"{key}={value}") for key, value in (hydra.sweeper.params or {}).items()]
    own: list[str] = []
    of_hydra: list[str] = []
    zips: dict[bool, list[list[str]]] = {False: [], True: []}
    values: dict[str, list[Words]] = {}
    dimensions: dict[str, Dimension] = {}
    rules: dict[bool, dict[str, str]] = {False: {}, True: {}}
    for i, word in enumerate(swept + overrides):
        key = word.partition("=")[0]
        if bare(key) == ZIP:
            zips[i >= len(swept)] += read_zip(word)
        elif key.lstrip("+~").startswith(_HYDRA):
            if any(override.is_sweep_override() for override in parse_overrides([word], config_dir)):
                raise UserError(f"{word}: a multirun has one value of Hydra's own keys, for all runs")
            of_hydra.append(word)
        elif is_auto_word(word):
            rules[i >= len(swept)][bare(key)] = word.partition("=")[2].strip("'\"")
            values.pop(bare(key), None)
        else:
            own.append(word)
            key, values_of = _values(word, config_dir, dimensions if searches else None)
            values[key] = values_of
            if bare(key) == "seed":  # listed seeds replace a rule of the experiment's
                rules[False].clear()
                rules[True].pop("seed", None)
    if zipped := sorted({key for keys in zips[True] or zips[False] for key in keys} & dimensions.keys()):
        raise UserError(f"zip walks listed values together, and {zipped[0]} is searched: leave it out of zip")
    axes = make_axes(
        values,
        zips[True] or zips[False],  # what is typed replaces
        tuple(word for word in own if word.startswith("experiment=")),
        lambda words: _look(list(words), config_dir),
    )
    settings = _plain(hydra.launcher)
    target = str(settings.pop("_target_"))
    choice = hydra.runtime.choices["hydra/launcher"]
    keys = {str(key): value for key, value in settings.items()}
    search = {str(key): value for key, value in _plain(hydra.sweeper).items()} if searches else None
    rule = read_auto_seeds(rules[False] | rules[True])
    if rule is not None and searches:
        raise UserError("hydra/sweeper=optuna searches settings, and seed=auto compares losses at theirs: search first")
    count = axes.count()
    return Multirun(own, of_hydra, common, count, axes.notes, choice, keys, target, axes, search, dimensions, rule)


def job_overrides(multirun: Multirun) -> list[list[str]]:
    """The overrides of each job, in Hydra's order."""
    return list(multirun.axes.jobs())


def study_spaces(multirun: Multirun) -> list[StudySpace]:
    """The studies of a multirun that searches, in Hydra's order."""
    return make_studies(job_overrides(multirun), multirun.dimensions)


def single_job(overrides: list[str]) -> list[str]:
    """The overrides of a run that is no multirun: choices with settings become words of their own.

    Raises:
        UserError: for several choices, and for `zip`.
    """
    job: list[str] = []
    refuse_auto_words(overrides, "a multirun that adds seeds by itself: add -m, or leave it out")
    for word in overrides:
        if bare(word.partition("=")[0]) == ZIP:
            raise UserError(f"{word} walks the axes of a multirun together: add -m, or leave it out")
        if not has_settings(word):
            job.append(word)
        elif len(found := choices(word)) > 1:
            raise UserError(f"{word} is a list of values: add -m to run them all")
        else:
            job += found[0]
    keys = [word.partition("=")[0] for word in job]
    for word in overrides:
        twice = [w for w in choices(word)[0][1:] if keys.count(w.partition("=")[0]) > 1] if has_settings(word) else []
        if twice:
            raise UserError(f"{twice[0].partition('=')[0]} is set by {word} already: leave one out")
    return job


def is_multirun(overrides: list[str], config_dir: Path | None = None) -> bool:
    """Whether the configuration itself asks for a multirun (hydra.mode=MULTIRUN, typed or in an experiment)."""
    mode = _before_any_job(overrides, config_dir)[1].mode
    return mode is not None and mode.name == "MULTIRUN"


def _values(
    word: str, config_dir: Path | None, dimensions: dict[str, Dimension] | None = None
) -> tuple[str, list[Words]]:
    """The key of a word, and the words of each of its values; for a key that is searched, the word itself.

    Args:
        dimensions: takes what is searched; None where nothing is.

    Raises:
        UserError: where values cannot be counted.
    """
    if has_settings(word):
        values: list[Words] = []
        for choice in choices(word):
            key, own = _values(choice[0], config_dir, dimensions)
            values += [(*first, *choice[1:]) for first in own]
        return key, values
    (override,) = parse_overrides([word], config_dir)
    key = override.get_key_element()
    if dimensions is not None and (dimension := read_dimension(override)) is not None:
        dimensions[key] = dimension
        return key, [(word,)]
    if not override.is_sweep_override():
        return key, [(word if override.is_delete() else f"{key}={override.get_value_element_as_str()}",)]
    if key == "experiment":
        raise UserError(f"{word}: an experiment may be a multirun of its own; start one at a time")
    if not override.is_discrete_sweep():
        assert override.value_type is not None
        name = override.value_type.name.lower().removesuffix("_sweep")
        raise UserError(f"{word}: {name} has no end; list the values of {key}, or add hydra/sweeper=optuna")
    found: list[Words] = [(f"{key}={value}",) for value in islice(override.sweep_string_iterator(), _MOST_VALUES + 1)]
    if len(found) > _MOST_VALUES:
        raise UserError(f"{key} has more than {_MOST_VALUES:,} values")
    if not found:
        raise UserError(f"{word} is no value at all: there is nothing to run")
    return key, found


def _plain(node: Any) -> dict[Any, Any]:
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return plain


def _before_any_job(overrides: list[str], config_dir: Path | None) -> tuple[list[str], DictConfig]:
    """The words of one value with which the configuration composes, and Hydra's own part of it.

    A key of one value may apply to some of the listed choices only, so that it does not compose with the others.
    """
    words = [word for word in overrides if bare(word.partition("=")[0]) != ZIP and not has_settings(word)]
    words = [word for word in words if not is_auto_word(word)]
    fixed = [o.input_line or "" for o in parse_overrides(words, config_dir) if not o.is_sweep_override()]
    try:
        hydra = compose_config(fixed, config_dir, with_hydra=True).hydra
    except UserError:
        keys = {word: bare(word.partition("=")[0]) for word in fixed}
        fixed = [word for word, key in keys.items() if key.startswith(_HYDRA) or is_group(key) or "." not in key]
        hydra = compose_config(fixed, config_dir, with_hydra=True).hydra
    _check_folders(hydra)
    return fixed, hydra


def _check_folders(hydra: DictConfig) -> None:
    """Refuse Hydra's own folders, wherever they were set: runs have theirs, by which they are found again."""
    plain = OmegaConf.to_container(hydra, resolve=False)
    assert isinstance(plain, dict)
    ours = {"run": {"dir": "${output_dir}/${name}"}, "sweep": {"dir": "${output_dir}/${name}", "subdir": "."}}
    wrong = [f"hydra.{key}.{k}" for key, own in ours.items() for k, v in own.items() if (plain[key] or {}).get(k) != v]
    wrong += ["hydra.output_subdir"] if plain["output_subdir"] is not None else []
    wrong += ["hydra.job.chdir"] if plain["job"].get("chdir") else []
    if wrong:
        raise UserError(
            f"{wrong[0]} cannot be changed: a run lives in output_dir/name, in a folder that follows from what it "
            "computes, and starts in the current one; set output_dir=… and name=…"
        )


def _look(words: list[str], config_dir: Path | None) -> tuple[set[str], set[str]]:
    """The keys and the groups that these choices give."""
    config = compose_config(words, config_dir, with_hydra=True)
    groups = {str(key) for key in config.hydra.runtime.choices}
    with open_dict(config):
        del config["hydra"]
    return flat_keys(OmegaConf.to_container(config, resolve=False)), groups
