"""Read the records of a folder of runs and sort them by what was compared. No torch."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losslab.config.identity import NOT_IDENTITY, flatten, loss_label, without
from losslab.config.stored import filled
from losslab.errors import UserError
from losslab.records import CONFIG, Record, find_runs, read, read_config
from losslab.records import FILE as RECORD

_MUST_MATCH = ("data.", "trainer.max_steps", "trainer.precision", "task.")
"""Runs that differ here answer different questions."""


@dataclass(frozen=True)
class Run:
    """A run as the comparison sees it."""

    folder: Path
    record: Record
    loss: str
    seed: int
    settings: dict[str, Any]
    """Dotted key → value of everything in its identity but the seed."""

    def curve(self, metric: str) -> dict[int, float]:
        """Step → value, out of metrics.csv."""
        path = self.folder / "metrics.csv"
        if not path.exists():
            return {}
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [(row["step"], row.get(metric)) for row in csv.DictReader(file)]
            return {int(step): float(value) for step, value in rows if value}
        except (ValueError, KeyError, csv.Error) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path} is damaged ({reason}); move it away to compare without its curve") from None


@dataclass
class Group:
    """One loss under one setting: a row of the table."""

    loss: str
    context: tuple[tuple[str, Any], ...]
    """Settings outside the loss that vary between the compared runs (a learning rate, say)."""
    label: str
    runs: dict[int, Run] = field(default_factory=dict)
    """Seed → its newest completed run."""
    others: Counter[str] = field(default_factory=Counter)
    """Status → number of runs without a result."""
    repeated: int = 0
    """Older repetitions (fresh=true) that the newest one stands for."""


_OF_LOSS = ("loss.", "regularizers.")
"""Settings that tell losses apart; all others must be shared by what is compared."""


def load_runs(folder: Path) -> list[Run]:
    """All runs directly below `folder`. Raises UserError when there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    if (folder / RECORD).is_file():
        raise UserError(f"{folder} is one run; compare the folder of runs above it: {folder.parent}")
    runs = []
    for path in find_runs(folder):
        record = read(path)
        config = read_config(path)
        config = filled(config, path / CONFIG)
        settings = flatten(without(config, [*NOT_IDENTITY, "seed", "data.path"]))
        settings["data.content"] = record.hashes.get("data")
        if settings.get("data.tokenizer") not in ("bpe", "bytes"):
            settings["data.tokenizer"] = record.hashes.get("tokenizer")
        choices = {"loss": config["loss"]["_target_"].rpartition(".")[2]} | record.provenance.get("choices", {})
        runs.append(Run(path, record, loss_label(choices), config["seed"], settings))
    if not runs:
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and find_runs(path))
        hint = f"; those below it do: {', '.join(inside)}" if inside else ""
        raise UserError(f"{folder} holds no runs{hint}")
    return runs


def group_runs(runs: list[Run]) -> list[Group]:
    """One group for each loss and setting, in the order of their labels.

    Raises:
        UserError: when runs differ in data, budget or precision.
    """
    # Attempts that came to nothing must not keep the others from being compared.
    counting = [run for run in runs if run.record.status == "completed"] or runs
    varying = {key for key in _keys(counting) if len({repr(run.settings.get(key)) for run in counting}) > 1}
    clash = sorted(key for key in varying if key.startswith(_MUST_MATCH))
    if clash:
        values = sorted({repr(run.settings.get(clash[0])) for run in counting})
        raise UserError(
            f"these runs differ in {clash[0]} ({', '.join(values)}) and cannot be compared; "
            "give each setting a name=… of its own"
        )
    outside = sorted(key for key in varying if not key.startswith(_OF_LOSS))
    by_loss: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_loss[run.loss].append(run)
    groups: dict[str, Group] = {}
    for loss, own in by_loss.items():
        inside = sorted(
            key
            for key in _keys(own)
            if key.startswith(_OF_LOSS) and len({repr(run.settings.get(key)) for run in own}) > 1
        )
        for run in own:
            parts = [f"{key.rpartition('.')[2]}={run.settings.get(key)}" for key in (*inside, *outside)]
            label = " ".join([loss, *parts])
            context = tuple((key, run.settings.get(key)) for key in outside)
            group = groups.setdefault(label, Group(loss, context, label))
            _place(group, run)
    return [groups[label] for label in sorted(groups)]


def _keys(runs: list[Run]) -> set[str]:
    return set().union(*(run.settings for run in runs))


def _place(group: Group, run: Run) -> None:
    if run.record.status != "completed":
        group.others[run.record.status] += 1
        return
    known = group.runs.get(run.seed)
    if known is not None:
        group.repeated += 1
        if known.record.timing.get("started", "") > run.record.timing.get("started", ""):
            return
    group.runs[run.seed] = run
