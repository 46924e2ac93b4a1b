"""Make components from their nodes: only classes, and, for a configuration out of a folder, only trusted ones."""

from __future__ import annotations

from typing import Any

from losslab.config.check import import_target
from losslab.config.schema import COMPONENTS
from losslab.errors import UserError

ALLOWED = frozenset(
    [
        "losslab.tasks.lm.LanguageModeling",
        "losslab.models.decoder.Decoder",
        "losslab.losses.cross_entropy.CrossEntropy",
        "losslab.losses.kl_divergence.KLDivergence",
        "losslab.losses.square.Square",
        "losslab.data.module.TextDataModule",
        "losslab.training.schedules.Constant",
        "losslab.training.schedules.Cosine",
        "torch.optim.AdamW",
        "torch.optim.Adam",
        "torch.optim.SGD",
    ]
)
"""Exact classes, never a prefix and never a function: torch and its neighbours hold callables that run a shell."""


def build(node: dict[str, Any], where: str, **late: Any) -> Any:
    """Instantiate a bound node; nested nodes too. `late` are the arguments that only now are known."""
    arguments = {
        key: build(value, f"{where}.{key}") if isinstance(value, dict) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    target = import_target(node["_target_"], where)
    try:
        return target(**arguments, **late)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor raises, it is the settings that it refuses
        raise UserError(f"{where}: {target.__name__} refuses its settings: {type(error).__name__}: {error}") from error


def targets(config: Any) -> set[str]:
    """Every `_target_` anywhere in a configuration."""
    if isinstance(config, dict):
        own = {str(config["_target_"])} if "_target_" in config else set()
        return own.union(*map(targets, config.values()))
    if isinstance(config, list):
        return set().union(*map(targets, config))
    return set()


def foreign_targets(config: dict[str, Any]) -> list[str]:
    """The classes outside the allow-list that a configuration, typed by its own user, names."""
    return sorted(targets({group: config[group] for group in COMPONENTS}) - ALLOWED)


def check_trusted(config: dict[str, Any], trust: list[str]) -> None:
    """Refuse a configuration out of a folder that names a class nobody vouched for. Imports nothing."""
    unknown = sorted(targets(config) - ALLOWED - set(trust))
    if unknown:
        options = " ".join(f"--trust {name}" for name in unknown)
        raise UserError(f"this run uses code outside losslab ({', '.join(unknown)}); if you trust it, add {options}")
