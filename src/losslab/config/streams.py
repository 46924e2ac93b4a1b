"""Seeds of single random streams (`seeds.data_order=7`): `seed` is that of all others. No torch."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from losslab.config.schema import SeedsConfig

SEEDS = "seeds"
TWIN = "twin"
"""The key of `seeds` that is no stream's seed but the number of a twin."""
STREAMS = tuple(field.name for field in fields(SeedsConfig) if field.name != TWIN)
_COARSE = ("bf16-true", "16-true")
"""Precisions whose weights cannot hold a factor of 1 + 1e-6."""


def seed_of(config: dict[str, Any], stream: str) -> int:
    """The seed of one of STREAMS: its own, or else the run's."""
    own = config[SEEDS][stream]
    return int(config["seed"] if own is None else own)


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The section `seeds` without seeds that are the run's anyway: two ways to type one run are one run."""
    own = {key: None if key != TWIN and value == config["seed"] else value for key, value in config[SEEDS].items()}
    return {**config, SEEDS: own}


def mistakes_of(config: dict[str, Any]) -> list[str]:
    """A sentence for each wrong value of `seed` and `seeds`.

    Args:
        config: typed, with a precision that is spelled out.
    """
    seeds = {"seed": config["seed"]} | {f"{SEEDS}.{name}": seed_of(config, name) for name in STREAMS}
    found = [f"{key} must be 0 or above, not {value}" for key, value in seeds.items() if value < 0]
    twin, precision = config[SEEDS][TWIN], config["trainer"]["precision"]
    if twin is None:
        return found
    if twin < 1:
        found.append(f"{SEEDS}.{TWIN} is the number of a twin, and must be 1 or above, not {twin}")
    if precision in _COARSE:
        found.append(
            f"{SEEDS}.{TWIN} changes weights by a millionth, which trainer.precision={precision} rounds off: choose "
            "32-true or bf16-mixed"
        )
    return found
