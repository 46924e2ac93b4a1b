"""Read what a folder of runs, or a table of results made elsewhere, says. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from losslab.choices import conf_dir
from losslab.comparison.growing import Growing
from losslab.comparison.runs.results_table import number_in, read_table
from losslab.comparison.runs.run import BEST, Run
from losslab.comparison.runs.seed import read_seeds
from losslab.config.callbacks import OBSERVERS
from losslab.config.identity import ADDED_LATER, NOT_IDENTITY, flatten, loss_label, without
from losslab.config.nearest import nearest
from losslab.config.stored import PATHS, filled
from losslab.config.streams import SEEDS, STREAMS, TWIN
from losslab.errors import UserError
from losslab.records import Record
from losslab.run_folder import RunFolder, find_runs

_WITHOUT_EFFECT = ("continue_from",)
"""A continued run is, bit for bit, the run of that length."""
_TARGET = "loss._target_"
_NAMED = 3


@dataclass(frozen=True)
class Loaded:
    """Runs that were found, and problems."""

    source: Path
    runs: list[Run]
    problems: list[str]
    """A sentence for each thing that could not be read."""
    asked: tuple[str, ...] = ()
    """Filters by which the runs were asked for, if not all."""
    weights: str = BEST
    """The weights that their metrics are of (`Run.weights`)."""
    growing: Growing | None = None
    """The sweep that made them, where it added seeds until losses were decided."""


def load_runs(source: Path, *, where: Sequence[str] = ()) -> Loaded:
    """All runs directly below a folder, or all lines of a table (.csv).

    Args:
        where: KEY=VALUE of settings (seed=7,8,9: any of these); only runs that have them count.

    Raises:
        UserError: when there are none.
    """
    if source.suffix.lower() == ".csv" and source.is_file():
        loaded = Loaded(source, read_table(source), [])
    else:
        loaded = _read_folder(source)
    runs = loaded.runs
    for text in where:
        runs = _only(runs, text)
    asked = (f"only runs with {' and '.join(where)}, {len(runs)} of {len(loaded.runs)}",) if where else ()
    runs, problems = _without_debug(runs)
    return replace(loaded, runs=runs, problems=[*loaded.problems, *problems], asked=asked)


def _without_debug(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs without debug runs, and a sentence that says so; where there are no others, all of them."""
    kept = [run for run in runs if not run.debug]
    if not kept or len(kept) == len(runs):
        return runs, []
    flags = sorted({key for run in runs for key in run.debug})
    left_out = len(runs) - len(kept)
    told = f"{left_out} debug run{'s are' if left_out > 1 else ' is'} left out ({', '.join(flags)})"
    return kept, [f"{told}: a run on a part of the data is no result; --where {flags[0]}=… compares such runs alone"]


def _read_folder(folder: Path) -> Loaded:
    if not folder.is_dir():
        raise UserError(f"{folder} is neither a folder of runs nor a .csv table of results")
    if RunFolder(folder).exists():
        raise UserError(f"{folder} is one run; compare the folder of runs above it: {folder.parent}")
    runs, problems = [], []
    for run in find_runs(folder):
        try:
            runs.append(_read_run(run))
        except UserError as error:
            problems.append(f"left out, because it cannot be read: {error}")
    if not runs:
        if problems:
            raise UserError(problems[0].partition(": ")[2])
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and find_runs(path))
        hint = f"; those below it do: {', '.join(inside)}" if inside else ""
        raise UserError(f"{folder} holds no runs{hint}")
    growing = Growing.of(folder)
    if growing is not None:
        runs, others = _asked_for(runs, growing)
        problems += others
    return Loaded(folder, runs, problems, growing=growing)


def _asked_for(runs: list[Run], growing: Growing) -> tuple[list[Run], list[str]]:
    """The runs without those of its losses that the sweep did not ask for, and a sentence on these: repetitions and
    further seeds, of which its verdicts were not taken. Twins, and losses that were added by hand, stay."""
    of_sweep = [(run.loss, run.settings) for run in runs if run.name in growing.labels]
    others = [
        run
        for run in runs
        if run.name not in growing.labels and run.twin is None and (run.loss, run.settings) in of_sweep
    ]
    if not others:
        return runs, []
    names = ", ".join(run.name for run in others[:_NAMED]) + (" and others" if len(others) > _NAMED else "")
    told = f"left out, because the sweep of seed=auto did not ask for {'it' if len(others) == 1 else 'them'}: {names}"
    return [run for run in runs if run not in others], [told]


def _read_run(run: RunFolder) -> Run:
    record = run.record()
    config = filled(run.config(), run.config_file)
    paths = [key for key in PATHS if not isinstance(config["data"].get(key.rpartition(".")[2]), dict)]
    # The content of paths counts, as data.content.
    settings = flatten(without(config, [*NOT_IDENTITY, *_WITHOUT_EFFECT, "seed", SEEDS, *paths, "callbacks"]))
    settings |= _callbacks(config["callbacks"], record)
    settings = {key: value for key, value in ADDED_LATER.items() if not key.startswith(f"{SEEDS}.")} | settings
    settings["data.content"] = record.hashes.get("data")
    settings["init_from"] = record.hashes.get("init_from")
    if settings.get("data.tokenizer") not in ("bpe", "bytes"):
        settings["data.tokenizer"] = record.hashes.get("tokenizer")
    choices = {"loss": config["loss"]["_target_"].rpartition(".")[2]} | record.provenance.get("choices", {})
    plain = _is_plain(choices["loss"], settings, record.overrides)
    seed, twin = read_seeds(config)
    return Run(run, record, loss_label(choices), seed, settings, plain, twin=twin)


def _callbacks(nodes: dict[str, Any], record: Record) -> dict[str, Any]:
    """The callbacks that may change a run's numbers: their names in one setting, and the keys of each. No class is
    imported: which ones only observe is a table, and for others in the record."""
    observers = record.provenance.get("observers", [])
    own = {name: node for name, node in nodes.items() if node["_target_"] not in OBSERVERS and name not in observers}
    if not own:
        return {}
    keys = {name: {key: value for key, value in node.items() if key != "_target_"} for name, node in own.items()}
    return {"callbacks": "+".join(sorted(own))} | flatten({"callbacks": keys})


def _is_plain(choice: str, settings: dict[str, Any], overrides: Sequence[str]) -> bool:
    """Whether a loss is at the defaults of its file, if it is a shipped one, and of another, whether none was typed."""
    if any(value for key, value in settings.items() if key.startswith("regularizers.")):
        return False
    shipped = _shipped(choice)
    typed = {text.lstrip("+~").partition("=")[0] for text in overrides}
    if any(key.startswith("loss.") and (key not in shipped or key not in settings) for key in typed):
        return False
    return all(settings[key] == value for key, value in shipped.items() if key in settings and key != _TARGET)


@lru_cache(maxsize=64)
def _shipped(choice: str) -> dict[str, Any]:
    """The defaults of a loss that losslab ships, by dotted keys; empty for another."""
    path = conf_dir() / "loss" / f"{choice}.yaml"
    if not path.is_file():
        return {}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return flatten({"loss": {key: value for key, value in content.items() if key != "defaults"}})


def _only(runs: list[Run], text: str) -> list[Run]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--where {text} cannot be read: write KEY=VALUE, such as trainer.precision=32-true")
    known = set().union(*map(_known_of, runs))
    if key not in known:
        raise UserError(f"no run has a setting {key!r}: {nearest(key, known)}")
    wanted = [value, *value.split(",")]  # a whole value may hold a comma
    found = [run for run in runs if any(_has(run, key, text) for text in wanted)]
    if not found:
        values = sorted({str(_known_of(run).get(key)) for run in runs})
        raise UserError(f"no run has {text}; there are: {', '.join(values)}")
    return found


def _known_of(run: Run) -> dict[str, Any]:
    """Names that a filter may use, with their values: loss, seeds and settings."""
    streams = {f"{SEEDS}.{stream}": run.seed.of(stream) for stream in STREAMS}
    return {"loss": run.loss, "seed": int(run.seed), **streams, f"{SEEDS}.{TWIN}": run.twin, **run.settings}


def _has(run: Run, key: str, value: str) -> bool:
    own = _known_of(run).get(key)
    try:
        wanted = yaml.safe_load(value)
    except (ValueError, yaml.YAMLError):  # a day that no month has is a ValueError
        wanted = value
    return own == wanted or str(own) == value or (isinstance(own, float) and own == number_in(value))
