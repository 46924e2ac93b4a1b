"""`losslab losses`: the catalogue as a table, and a card of one loss."""

from __future__ import annotations

import json
import textwrap
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from losslab import console
from losslab.config.schema import RegularizersConfig
from losslab.conformance.catalogue import Entry, catalogue, find
from losslab.contracts import TargetKind

COSTS = {
    "F1": "reads the target's logit and the logsumexp of all; as quick as cross-entropy",
    "F2": "as F1, and a linear function of the logits: one more product of a matrix and a vector",
    "F3": "reads all logits of a position, of a few hundred positions at a time",
    "F4": "reads the largest logits, or their order: a search over all classes at each position",
    "F5": "needs no logits at all, only hidden states and weights",
    "F6": "reads the logits of some of the classes in training: a sample, or the target's cluster",
}
"""The meaning of each cost class, beside the product of hidden states and weights."""
TARGETS = {
    TargetKind.CLASSES: "one class a position, int64 [N]",
    TargetKind.DISTRIBUTIONS: "a distribution over the classes, float [N, V], each row of sum 1",
    TargetKind.LABELS: "classes that do not exclude one another, float [N, V] in [0, 1]",
    TargetKind.VALUES: "numbers, float [N, K], K of them a position",
    TargetKind.SEQUENCES: "a sequence of classes for each sequence of positions, int64 [S, U], −1 behind its last",
}
_WAYS = {
    "from_log_prob": "from_log_prob: a function of log p_y alone",
    "from_statistics": "from_statistics: a function of z_y, logsumexp z and a linear function of z",
    "position_loss": "position_loss: any function of a position's logits and target",
    "from_logits": "from_logits: any function of a position's logits, target and extras",
    "values": "values: any function of hidden states and weights",
    "forward": "forward: sums and gradients of its own, from hidden states and weights",
}
_WIDEST = 110
"""Width of text that is read as sentences."""


def run(name: str | None, config_dir: Path | None, *, as_json: bool) -> int:
    """Print the catalogue, or the card of the loss `name` (of conf/loss or a dotted path); returns the exit code.

    Raises:
        UserError: for a name that there is not, and a yaml or class that is no loss.
    """
    if name is not None:
        entry = find(name, config_dir)
        if as_json:
            console.say(json.dumps(as_data(entry, config_dir), ensure_ascii=False, indent=2))
        else:
            _print_card(entry, config_dir)
        return 0
    entries = catalogue(config_dir)
    if as_json:
        data = {"losses": [as_data(entry, config_dir) for entry in entries]}
        console.say(json.dumps(data, ensure_ascii=False, indent=2))
        return 0
    if console.out.is_terminal:
        console.out.print(_table(entries), soft_wrap=False)
    else:
        for line in _plain(entries):
            console.say(line)
    console.say("")
    console.say("cost: losslab losses NAME says what it means, and all else; losslab bench measures it")
    console.say(
        f"with losses of the softmax go regularizers.{', '.join(field.name for field in fields(RegularizersConfig))}"
    )
    return 0


def as_data(entry: Entry, config_dir: Path | None) -> dict[str, Any]:
    """All of an entry, for programs."""
    return {
        **vars(entry),
        "keys": [vars(key) for key in entry.keys],
        "target_kind": entry.target_kind.value,
        "paper": entry.paper,
        "commands": commands(entry, config_dir),
    }


def commands(entry: Entry, config_dir: Path | None) -> list[str]:
    """Commands to try it: those that work."""
    own = f" --config-dir {config_dir}" if config_dir is not None and "." not in entry.name else ""
    required = "".join(f" loss.{key.name}=VALUE" for key in entry.keys if key.required)
    found = [f"losslab check {entry.name}{required}{own}"]
    if "." in entry.name:  # no yaml to name
        return found
    if entry.target_kind is TargetKind.VALUES:
        return [*found, f"losslab train task=regression data=csv data.path=FILE loss={entry.name}{own}"]
    if entry.target_kind is TargetKind.SEQUENCES:
        parts = "task=transcription model=patches data=frames data.path=FILE"
        return [*found, f"losslab train {parts} loss={entry.name}{own}"]
    both = entry.name if entry.name == "cross_entropy" else f"cross_entropy,{entry.name}"
    found.append(f"losslab bench loss={both}{own}")
    if entry.target_kind is TargetKind.CLASSES:  # as the task that ships has
        teacher = " loss.teacher=RUN_DIR" if entry.reads_teacher else ""
        found.append(f"losslab train loss={entry.name}{teacher}{own}")
    return found


def facts(entry: Entry) -> dict[str, str]:
    """The declarations of a class, in words."""
    cost = "the outputs are a few a value, not a vocabulary"
    found = {
        "Targets": f"{entry.target_kind.value}: {TARGETS[entry.target_kind]}",
        "Cost": cost if entry.cost_class is None else f"{entry.cost_class}: {COSTS.get(entry.cost_class, 'its own')}",
        "Proper": "no, as far as it declares: the prediction that minimises it need not be the data's distribution",
        "Shift": "a constant added to all logits of a position changes nothing"
        if entry.shift_invariant
        else "a constant added to all logits of a position may change it",
        "Positions": "each has its own loss" if entry.position_wise else "each depends on the whole batch",
        "Written": _WAYS.get(entry.written_as, entry.written_as),
    }
    if entry.own_forward and entry.written_as != "forward":
        found["Written"] += "; with a forward of its own, that can do it another way"
    if entry.is_proper:
        found["Proper"] = "yes: the prediction that minimises it is the data's distribution"
    if entry.target_kind is TargetKind.VALUES:
        del found["Proper"], found["Shift"]
    if entry.target_kind is TargetKind.SEQUENCES:
        del found["Proper"]
        found["Positions"] = "each sequence of them has its own loss"
    if entry.has_detached:
        found["Detached"] = "part of the formula has no gradient"
    return found


def written(value: Any) -> str:
    """A default as a yaml has it; of a loss inside a loss, its name."""
    if isinstance(value, dict) and "_target_" in value:
        return str(value["_target_"]).split(".")[-2]
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _table(entries: list[Entry]) -> Table:
    """A table as wide as the terminal; a part for each kind of targets."""
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("loss", no_wrap=True)
    table.add_column("idea", ratio=1)
    table.add_column("cost", no_wrap=True)
    table.add_column("proper", no_wrap=True)
    table.add_column("paper", width=len("arXiv:2000.00000") if console.out.width < 100 else 28)
    for kind, part in groupby(entries, key=lambda entry: entry.target_kind):
        table.add_section()
        table.add_row(Text(f"targets: {kind.value}", style="dim"))
        for entry in part:
            _, _, cost, proper, paper, idea = _cells(entry)
            table.add_row(Text(entry.name, style="bold"), *map(Text, (idea, cost, proper, paper)))
    return table


def _plain(entries: list[Entry]) -> list[str]:
    """A loss in each line, whole, for files and other programs."""
    rows = [["loss", "targets", "cost", "proper", "paper", "idea"], *map(_cells, entries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(entry: Entry) -> list[str]:
    proper = {True: "yes", False: "no", None: "–"}[entry.is_proper]
    return [entry.name, entry.target_kind.value, entry.cost_class or "–", proper, entry.paper, entry.idea]


def _print_card(entry: Entry, config_dir: Path | None) -> None:
    rows = {**entry.sections, **facts(entry)}
    label = max(len(heading) for heading in [*rows, "Keys", "Try it"])
    console.out.print(Text(f"{entry.name}  {entry.title}: {entry.idea}".rstrip(": "), style="bold"))
    if entry.about:
        console.say(entry.about)
    console.say("")
    for heading, text in rows.items():
        _print_row(heading, text, label)
    for i, key in enumerate(entry.keys):
        default = "required" if key.required else written(key.default)
        meaning = f"  # {key.meaning}" if key.meaning else ""
        _print_row("" if i else "Keys", f"{key.name}: {default}{meaning}", label)
    for i, command in enumerate(commands(entry, config_dir)):
        console.say(f"{'' if i else 'Try it':<{label}}  {command}")


def _print_row(heading: str, text: str, label: int) -> None:
    """Wrapped on a terminal; elsewhere a line."""
    indent = " " * (label + 2)
    lines = text.splitlines() or [""]
    if console.out.is_terminal:
        width = max(min(console.out.width, _WIDEST) - len(indent), 20)
        lines = [part for line in lines for part in textwrap.wrap(line, width, break_on_hyphens=False)]
    for i, line in enumerate(lines):
        console.say(f"{'' if i else heading:<{label}}  {line}")
