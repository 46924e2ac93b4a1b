"""Read what a folder of runs, or a table of results made elsewhere, says. No torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from losslab.config.callbacks import OBSERVERS
from losslab.config.flags import DEBUG
from losslab.config.identity import ADDED_LATER, NOT_IDENTITY, flatten, loss_label, without
from losslab.config.nearest import nearest
from losslab.config.paths import conf_dir
from losslab.config.stored import filled
from losslab.errors import UserError
from losslab.records import Record
from losslab.run_folder import RunFolder, find_runs

_WITHOUT_EFFECT = ("continue_from",)
"""A continued run is, bit for bit, the run of that length."""
_PATHS = ("data.path", "data.val_path", "data.test_path")
"""Their content counts, as data.content."""
_TARGET = "loss._target_"
_DEBUG = tuple(f"trainer.{key}" for key in DEBUG)
_DAMAGED = (OSError, ValueError, KeyError, EOFError)


@dataclass(frozen=True)
class Run:
    """A run as the comparison sees it."""

    folder: RunFolder | None
    """None for a line of somebody's table."""
    record: Record
    loss: str
    """The name of its loss: the choice of conf/loss."""
    seed: int
    settings: dict[str, Any]
    """Dotted key → value of everything in its identity but the seed."""
    plain: bool
    """Its loss and regularizers are at the defaults of that choice."""
    of_test: bool = True
    """Its metrics are those of its own test, and not of another text."""

    @property
    def name(self) -> str:
        return self.folder.name if self.folder is not None else self.record.name

    @property
    def debug(self) -> dict[str, Any]:
        """The flags that make it a debug run, with their values; empty for any other."""
        return {key: value for key in _DEBUG if (value := self.settings.get(key)) is not None}

    def best(self, metric: str) -> float | None:
        """A metric at the best checkpoint; None where it is missing or was not finite."""
        return self.record.metrics.get("best", {}).get(metric)

    def curves(self, wanted: Collection[str]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Metric → (steps, values), out of metrics.csv; of those wanted, the ones that have values.

        Raises:
            UserError: where the file is damaged.
        """
        if self.folder is None or not (path := self.folder.metrics).exists():
            return {}
        try:
            *lines, torn = path.read_text(encoding="utf-8").split("\n")
            if torn or not lines:
                raise ValueError("its last line is torn")  # an empty file has not even a first one
            # Numbers without quotes: splitting lines takes a third of the time of the csv module and numpy.
            header = lines[0].split(",")
            rows = [line.split(",") for line in lines[1:]]
            if {len(row) for row in rows} - {len(header)}:
                raise ValueError("its lines differ in length")
            shown = [(name, place) for place, name in enumerate(header) if name in wanted]
            places = [header.index("step"), *(place for _, place in shown)]
            table = np.array([[float(row[place] or "nan") for place in places] for row in rows])
            found = {}
            for column, (name, _) in enumerate(shown, start=1):
                told = np.array([row[places[column]] != "" for row in rows])
                if told.any():
                    found[name] = (table[told, 0], table[told, column])
            return found
        except _DAMAGED as error:
            raise UserError(f"{path} is damaged ({error}); its curves are left out") from None

    def scores(self) -> dict[str, NDArray[Any]] | None:
        """The content of test_scores.npz (`RunFolder.scores`); None where there is none.

        Raises:
            UserError: where the file is damaged.
        """
        if self.folder is None or not self.of_test or not (path := self.folder.scores).exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                found = {name: content[name] for name in ("unit", "units", "reliability")}
            if len(found["units"]) != 4 or found["reliability"].shape[:2] != (2, 3):
                raise ValueError("it holds arrays of another shape")
            return found
        except Exception as error:  # zipfile and numpy raise half a dozen kinds
            raise UserError(f"{path} is damaged ({error}); it is left out") from None


@dataclass(frozen=True)
class Loaded:
    """Runs that were found, and problems."""

    source: Path
    runs: list[Run]
    problems: list[str]
    """A sentence for each thing that could not be read."""
    asked: tuple[str, ...] = ()
    """Filters by which the runs were asked for, if not all."""


def load_runs(source: Path, *, where: Sequence[str] = ()) -> Loaded:
    """All runs directly below a folder, or all lines of a table (.csv).

    Args:
        where: KEY=VALUE of settings (seed=7,8,9: any of these); only runs that have them count.

    Raises:
        UserError: when there are none.
    """
    if source.suffix.lower() == ".csv" and source.is_file():
        loaded = Loaded(source, _read_table(source), [])
    else:
        loaded = _read_folder(source)
    runs = loaded.runs
    for text in where:
        runs = _only(runs, text)
    asked = (f"only runs with {' and '.join(where)}, {len(runs)} of {len(loaded.runs)}",) if where else ()
    runs, problems = _without_debug(runs)
    return Loaded(source, runs, [*loaded.problems, *problems], asked)


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
    return Loaded(folder, runs, problems)


def _read_run(run: RunFolder) -> Run:
    record = run.record()
    config = filled(run.config(), run.config_file)
    settings = flatten(without(config, [*NOT_IDENTITY, *_WITHOUT_EFFECT, "seed", *_PATHS, "callbacks"]))
    settings |= _callbacks(config["callbacks"], record)
    settings = ADDED_LATER | settings
    settings["data.content"] = record.hashes.get("data")
    settings["init_from"] = record.hashes.get("init_from")
    if settings.get("data.tokenizer") not in ("bpe", "bytes"):
        settings["data.tokenizer"] = record.hashes.get("tokenizer")
    choices = {"loss": config["loss"]["_target_"].rpartition(".")[2]} | record.provenance.get("choices", {})
    plain = _is_plain(choices["loss"], settings, record.overrides)
    return Run(run, record, loss_label(choices), config["seed"], settings, plain)


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
    known = {"loss", "seed"}.union(*(run.settings for run in runs))
    if key not in known:
        raise UserError(f"no run has a setting {key!r}: {nearest(key, known)}")
    wanted = [value, *value.split(",")]  # a whole value may hold a comma
    found = [run for run in runs if any(_has(run, key, text) for text in wanted)]
    if not found:
        values = sorted({str(run.settings.get(key, getattr(run, key, None))) for run in runs})
        raise UserError(f"no run has {text}; there are: {', '.join(values)}")
    return found


def _has(run: Run, key: str, value: str) -> bool:
    own = {"loss": run.loss, "seed": run.seed}.get(key, run.settings.get(key))
    try:
        wanted = yaml.safe_load(value)
    except (ValueError, yaml.YAMLError):  # a day that no month has is a ValueError
        wanted = value
    return own == wanted or str(own) == value or (isinstance(own, float) and own == _number(value))


def _read_table(path: Path) -> list[Run]:
    """Lines of loss, seed and metrics. A column with a dot in its name, such as optimizer.lr, is a setting; `status`
    may say completed, failed or diverged."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or []
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from None
    missing = [name for name in ("loss", "seed") if name not in columns]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}: a table needs loss, seed, and one column a metric")
    settings = [name for name in columns if "." in name]
    # Without a name: the numbers of the lines, which pandas writes.
    metrics = [name for name in columns if name and name not in ("loss", "seed", "status", *settings)]
    if not lines or not metrics:
        raise UserError(f"{path} holds no {'results' if metrics else 'column of a metric beside loss and seed'}")
    runs = []
    known: dict[tuple[Any, ...], int] = {}
    for number, line in enumerate(lines, start=2):
        loss, seed = (" ".join((line[name] or "").split()) for name in ("loss", "seed"))
        if not loss or not seed.isdecimal() or None in line:
            raise UserError(f"{path}, line {number}: needs a loss, a seed (a whole number), and a cell a column")
        values = {}
        for name in metrics:
            if (cell := (line[name] or "").strip()) and (value := _number(cell)) is None:
                raise UserError(f"{path}, line {number}: {cell!r} is no number for {name!r}")
            elif cell and math.isfinite(value):  # type: ignore[arg-type]
                values[name] = value
        status = (line.get("status") or "").strip() or "completed"
        if status not in ("completed", "failed", "diverged", "interrupted", "running", "planned", "pruned"):
            raise UserError(f"{path}, line {number}: {status!r} is no status; completed, failed or diverged, say")
        record = Record(identity="", name=f"line {number}", status=status, metrics={"best": values})  # type: ignore[dict-item]
        own = {name: _cell(line[name]) for name in settings}
        key = (loss, int(seed), *own.values())
        if key in known:
            raise UserError(
                f"{path}, line {number}: it repeats the loss and seed of line {known[key]}; a setting's column needs "
                "a dot in its name, such as optimizer.lr"
            )
        known[key] = number
        runs.append(Run(None, record, loss, int(seed), own, plain=True))
    return runs


def _cell(text: str | None) -> Any:
    value = _number(text or "")
    if value is None:
        return text or None
    return value if math.isfinite(value) else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
