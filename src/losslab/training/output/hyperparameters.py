"""The hyper-parameters of a run, flat, as its loggers receive them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from losslab.config.identity import flatten, loss_label
from losslab.config.streams import SEEDS
from losslab.records import Record


def hparams_of(config: dict[str, Any], record: Record) -> dict[str, str | float]:
    """The values of a run, as far as its record knows them."""
    choices = {"loss": config["loss"]["_target_"].rpartition(".")[2]} | record.provenance.get("choices", {})
    sizes = {key: record.provenance[key] for key in ("vocab_size", "parameters") if key in record.provenance}
    return describe_run(config, loss_label(choices), **sizes)


def describe_run(
    config: Mapping[str, Any], loss: str, *, vocab_size: float = math.nan, parameters: float = math.nan
) -> dict[str, str | float]:
    """The values of a run. Keys and types are fixed, whatever the components: settings that only
    some of them have stand in one text, and a number that a model lacks, or that is not known, is NaN: an empty
    cell."""
    model, data, trainer = config["model"], config["data"], config["trainer"]
    row: dict[str, str | float] = {"loss": loss, "loss_settings": _settings(config["loss"])}
    used = {key: value for key, value in config["regularizers"].items() if value}
    seeds = {key: value for key, value in config[SEEDS].items() if value is not None}
    row |= {"regularizers": _settings(used), "seed": float(config["seed"]), SEEDS: _settings(seeds)}
    row |= {key: _number(model.get(key)) for key in ("num_layers", "num_heads", "width", "context", "dropout")}
    row |= {"parameters": float(parameters), "vocab_size": float(vocab_size)}
    named = data.get("corpus") or Path(str(data.get("path") or data["_target_"].rpartition(".")[2])).name
    row |= {"data": str(named), "batch_size": float(data["batch_size"])}
    for group in ("optimizer", "scheduler"):
        row |= {group: config[group]["_target_"].rpartition(".")[2], f"{group}_settings": _settings(config[group])}
    row |= {"lr": _number(config["optimizer"].get("lr")), "max_steps": float(trainer["max_steps"])}
    return row | {"gradient_clip_val": str(trainer["gradient_clip_val"]), "precision": trainer["precision"]}


def _settings(node: Mapping[str, Any]) -> str:
    """Settings without the component's own name, but with those of the components in it, as the terms of a sum are."""
    values = {key: value for key, value in flatten(dict(node)).items() if key != "_target_"}
    shown = {
        key.removesuffix("._target_"): str(value).rpartition(".")[2] if key.endswith("._target_") else value
        for key, value in values.items()
    }
    return " ".join(f"{key}={value}" for key, value in shown.items()) or "none"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
