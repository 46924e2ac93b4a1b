"""Each task of conf/task with each loss of conf/loss. Whether two of them fit is told by what they declare."""

from __future__ import annotations

import functools
import json
import random
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from short_runs import COMMON

from atlas import write_atlas
from losslab.choices import conf_dir
from losslab.config.binding import bind_component, bind_components, import_target
from losslab.config.check import check_run, resolve_budget, resolve_split
from losslab.config.compose import compose_plain
from losslab.config.schema import RegularizersConfig
from losslab.contracts import Task
from losslab.losses.base import Loss
from losslab.run_folder import RunFolder
from losslab.training.factory import build_loss, build_task
from losslab.training.fitting import fits
from made_speech import write_utterances
from runs import make_text

MODEL = ["model.num_layers=1", "model.num_heads=2", "model.width=8", "model.context=16"]
WITHOUT_ROWS = {"copying": ["data.rows=64", "data.eval_rows=24", "data.length=4"]}
"""Settings of data that is called as its task."""
FURTHER = {"lm packed": ["task=lm", "data.packing=documents"]}

LOSS_SETTINGS: dict[str, dict[str, Any]] = {
    "adaptive_softmax": {"model.tie_embeddings": False},
    "coral": {"model.tie_embeddings": False},
    "sampled_softmax": {"loss.samples": 2},
    "hl_gauss": {"loss.num_bins": 8},
}
"""Loss → the keys that it needs, or that make it do on a few classes what it does on many."""
ORDERS = {"tags": ["I-X", "B-X", "O"]}
"""Kind of a column → an order of its classes, where they are no numbers."""
REGULARIZED, TEACHER = "regularized", "cross_entropy"
REGULARIZERS = {"z_loss": 1e-2, "confidence_penalty": 0.1, "mu_loss": 1e-2, "soft_cap": 5.0}
assert REGULARIZERS.keys() == {field.name for field in fields(RegularizersConfig)}


def task_rows() -> dict[str, list[str]]:
    """Name → overrides of each file in conf/task."""
    return {path.stem: [f"task={path.stem}"] for path in sorted((conf_dir() / "task").glob("*.yaml"))}


def further_rows() -> dict[str, list[str]]:
    """Name → overrides of each setting under which a task reads other columns, and of those in FURTHER."""
    rows: dict[str, list[str]] = {}
    for name, overrides in task_rows().items():
        node = yaml.safe_load((conf_dir() / f"task/{name}.yaml").read_text(encoding="utf-8"))
        kind = import_target(node.pop("_target_"), "task")
        hints = typing.get_type_hints(kind.__init__)
        for key, value in node.items():
            others = [not value] if isinstance(value, bool) else typing.get_args(hints[key])
            for other in others:
                if other != value and kind(**node | {key: other}).columns != kind(**node).columns:
                    rows[f"{name} {key}={other}"] = [*overrides, f"task.{key}={other}"]
    return rows | FURTHER


def loss_columns() -> dict[str, str]:
    """Name → file of each loss, and of one with all regularizers. The teacher of others stands first."""
    losses = sorted(path.stem for path in (conf_dir() / "loss").glob("*.yaml"))
    return {name: name for name in sorted(losses, key=lambda name: name != TEACHER)} | {REGULARIZED: "cross_entropy"}


def _cell(kind: str, rng: random.Random) -> Any:
    count = rng.randint(2, 4)
    return {
        "text": " ".join(rng.choices(make_words(), k=count)),
        "words": rng.choices(make_words(), k=4),
        "label": str(rng.randint(1, 3)),
        "labels": rng.sample("abc", rng.randint(0, 3)),
        "tags": rng.choices(ORDERS["tags"], k=4),
        "value": rng.uniform(-1, 1),
        "values": [rng.uniform(-1, 1), rng.uniform(5, 9)],
    }[kind]


@functools.cache
def make_words() -> list[str]:
    return sorted({word.strip(".").lower() for word in make_text().split()})[:40]


def short_documents(count: int = 60) -> str:
    rng = random.Random(0)
    return "\n\n".join(" ".join(rng.choices(make_words(), k=rng.randint(5, 9))) for _ in range(count))


def make_rows(columns: Mapping[str, str], count: int = 120) -> str:
    rng = random.Random(0)
    return "\n".join(json.dumps({name: _cell(kind, rng) for name, kind in columns.items()}) for _ in range(count))


@dataclass(frozen=True)
class Pair:
    """One cell of the table."""

    row: str
    column: str
    task: Task
    loss: Loss
    config: dict[str, Any]
    folder: RunFolder

    @property
    def fits(self) -> bool:
        return fits(self.loss, self.task)


def make_pairs(place: Path, row: str) -> dict[str, Pair]:
    """Column → cell of a row; what its runs read is written below `place`."""
    base, task = _of_task(row, place)
    sweep = place / _name(row)
    found = {}
    for column, name in loss_columns().items():
        node = dict(_loss_node(name))
        config = {**base, "loss": node, "model": dict(base["model"])}
        orders = [ORDERS[kind] for kind in task.columns.values() if kind in ORDERS]
        if "order" in node and orders:
            node["order"] = orders[0]
        if "teacher" in node:
            node["teacher"] = str(sweep / TEACHER)
        for key, value in LOSS_SETTINGS.get(column, {}).items():
            group, _, last = key.partition(".")
            if group == "loss" or last in config[group]:
                config[group][last] = value
        config["loss"] = bind_component("loss", node)
        if column == REGULARIZED:
            config["regularizers"] = dict(REGULARIZERS)
        found[column] = Pair(row, column, task, build_loss(config), config, RunFolder(sweep / column))
    return found


def _of_task(row: str, place: Path) -> tuple[dict[str, Any], Task]:
    """The configuration of a row but for its loss, and its task."""
    overrides = (task_rows() | further_rows())[row]
    task = build_task(compose_plain([*overrides]))
    path = place / _name(row)
    if task.of_stream:
        path = path.with_suffix(".txt")
        path.write_text(short_documents(), encoding="utf-8")
        data = ["data=text", f"data.path='{path}'", "data.tokenizer=bytes"]
    elif "frames" in task.columns.values():
        path = write_utterances(path, 120, longest=2)
        data = ["data=frames", f"data.path='{path}'", "data.source.stack=1", "model=patches"]
    elif task.columns:
        path = path.with_suffix(".jsonl")
        path.write_text(make_rows(task.columns), encoding="utf-8")
        data = ["data=jsonl", f"data.path='{path}'", "data.tokenizer=bytes"]
    elif task.points:
        path = path.with_suffix(".json")
        write_atlas(path, 8)
        data = ["data=squad", f"data.path='{path}'", "data.split_by=context", "data.tokenizer=bytes"]
    else:
        data = [f"data={row}", *WITHOUT_ROWS.get(row, [])]
    model = ["model=encoder"] if task.masks or task.points else []
    config = compose_plain([*overrides, *data, *model, *MODEL, *COMMON, f"output_dir='{place}'"])
    return resolve_split(resolve_budget(bind_components(check_run(config)))), task


def _name(row: str) -> str:
    return row.replace(" ", "-").replace("=", "-")


@functools.cache
def _loss_node(name: str) -> dict[str, Any]:
    return compose_plain([f"loss={name}"])["loss"]  # type: ignore[no-any-return]
