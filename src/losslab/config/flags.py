"""Lightning's flags of a Trainer that shorten a run: fast_dev_run, overfit_batches, limits, and lengths in passes over
the data, which are worked out in optimizer steps. No torch here.

A batch is `data.batch_size` samples everywhere, so that nothing depends on devices, micro-batches or val_batch_size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from losslab.config.nearest import nearest
from losslab.errors import UserError

LIMITS = {"limit_train_batches": "train", "limit_val_batches": "val", "limit_test_batches": "test"}
"""Key of the trainer → the split of which it takes a part."""
DEBUG = ("fast_dev_run", "overfit_batches", *LIMITS)
"""Keys of the trainer that make a run a debug run: its numbers belong to no comparison."""
PROFILERS = ("simple", "advanced", "pytorch")

_INTERVAL = "val_check_interval"
_SHARES = ("overfit_batches", *LIMITS, _INTERVAL)
_NONE_OF = 1e-9
"""Rounding of a product of a share and a number of batches."""


def debug_of(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that make a run a debug run, with their values; empty for any other run."""
    trainer = config["trainer"]
    return {f"trainer.{key}": trainer[key] for key in DEBUG if trainer.get(key) not in (None, False)}


def check_flags(trainer: dict[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """The trainer's keys with each flag in one spelling: true is 1, 4.0 is 4, and a limit of 1.0 is none."""
    flags: dict[str, Any] = {"fast_dev_run": _fast_dev_run(trainer["fast_dev_run"], mistakes)}
    for key in ("overfit_batches", *LIMITS):
        flags[key] = _batches(key, trainer[key], mistakes)
        if key in LIMITS and flags[key] == 1 and isinstance(flags[key], float):
            flags[key] = None
    flags[_INTERVAL] = _interval(trainer[_INTERVAL], mistakes)
    given = [f"trainer.{key}={flags[key]}" for key in ("overfit_batches", *LIMITS) if flags[key] is not None]
    if flags["fast_dev_run"] is not None and given:
        mistakes.append(f"trainer.fast_dev_run has limits of its own: leave out {' and '.join(given)}")
    limited = [text for text in given if text.startswith(("trainer.limit_train", "trainer.limit_val"))]
    if flags["overfit_batches"] is not None and limited:
        mistakes.append(
            f"trainer.overfit_batches says what is trained and validated on: leave out {' and '.join(limited)}"
        )
    _check_profiler(trainer["profiler"], mistakes)
    if trainer["detect_anomaly"] and str(trainer["precision"]) in ("16-mixed", "16"):
        mistakes.append(
            "trainer.detect_anomaly does not go with trainer.precision=16-mixed, whose scaler provokes gradients that "
            "are not finite: look for the NaN with bf16-mixed or 32-true"
        )
    budgets = [key for key in ("max_steps", "max_tokens", "max_epochs") if trainer[key] is not None]
    if len(budgets) > 1 and flags["fast_dev_run"] is None:
        mistakes.append(f"give {' or '.join(f'trainer.{key}' for key in budgets)}, not {_all_of(budgets)}")
    return {**trainer, **flags}


def _all_of(keys: list[str]) -> str:
    return "both" if len(keys) == 2 else "all three"


def _fast_dev_run(value: Any, mistakes: list[str]) -> int | None:
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if _is_number(value) and value > 0 and value == int(value):
        return int(value)
    mistakes.append(f"trainer.fast_dev_run must be true, or a number of optimizer steps above 0, not {value!r}")
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _batches(key: str, value: Any, mistakes: list[str]) -> int | float | None:
    """A whole number of batches, or a share in (0, 1]."""
    if value is None:
        return None
    if _is_number(value) and value > 0:
        if isinstance(value, int) or (value > 1 and value.is_integer()):
            return int(value)
        if value <= 1:
            return float(value)
    mistakes.append(
        f"trainer.{key} must be a whole number of batches above 0, or a share of them up to 1.0, not {value!r}"
    )
    return None


def _interval(value: Any, mistakes: list[str]) -> int | float | None:
    if value is None:
        return None
    key = f"trainer.{_INTERVAL}"
    if not _is_number(value):
        mistakes.append(f"{key} must be a number of optimizer steps, or a share of a pass over train, not {value!r}")
    elif not value > 0:
        mistakes.append(f"{key} must be above 0, not {value}")
    elif isinstance(value, int) or (value > 1 and value.is_integer()):
        return int(value)
    elif value <= 1:
        return float(value)
    else:
        mistakes.append(
            f"{key} must be a whole number of optimizer steps, or a share of a pass over train up to 1.0, not {value}"
        )
    return None


def _check_profiler(value: Any, mistakes: list[str]) -> None:
    if value is None or (isinstance(value, dict) and isinstance(value.get("_target_"), str)):
        return
    if isinstance(value, dict):
        mistakes.append("trainer.profiler has no _target_, which names the class of a profiler of your own")
    elif value not in PROFILERS:
        mistakes.append(f"trainer.profiler cannot be {value!r}: {nearest(str(value), PROFILERS)}")


# Lengths in passes.


def needs_passes(trainer: dict[str, Any]) -> bool:
    """Whether a flag can only be worked out once the size of the data is known."""
    if trainer.get("fast_dev_run") is not None:
        return False
    given = any(trainer.get(key) is not None for key in ("overfit_batches", "max_epochs", *LIMITS))
    return given or isinstance(trainer[_INTERVAL], float)


def without_passes(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with a default for each flag that needs the size of the data, for checks before any is read."""
    trainer = config["trainer"]
    shares = {key: None for key in _SHARES if isinstance(trainer[key], float)}
    return {**config, "trainer": trainer | shares | {"max_epochs": None}}


def resolve_passes(
    config: dict[str, Any], batches: Mapping[str, float | None]
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Work out shares and passes in batches and optimizer steps.

    Args:
        config: after `check_run`.
        batches: split → batches that a pass over it takes; None where the data does not say.

    Returns:
        The configuration, and dotted key → [the value given, the value it has] of what was worked out.

    Raises:
        UserError: for a share of less than one batch, and where the length of a pass is not known.
    """
    trainer = dict(config["trainer"])
    for key, split in (("overfit_batches", "train"), *LIMITS.items()):
        if isinstance(trainer[key], float):
            trainer[key] = _share(key, trainer[key], split, batches[split])
        known = batches[split]
        if trainer[key] is not None and known is not None and trainer[key] >= known:
            trainer[key] = max(1, int(known)) if key == "overfit_batches" else None
    cycle = trainer["overfit_batches"] or trainer["limit_train_batches"]
    length = cycle or batches["train"]
    if trainer["max_epochs"] is not None:
        if length is None:
            raise _unknown("max_epochs", trainer["max_epochs"], "give trainer.max_steps")
        trainer["max_steps"] = math.ceil(trainer["max_epochs"] * length - _NONE_OF)
        trainer["max_epochs"] = None
    if isinstance(trainer[_INTERVAL], float):
        trainer[_INTERVAL] = _share(_INTERVAL, trainer[_INTERVAL], "train", length)
    given = config["trainer"]
    changed = [key for key in _SHARES if isinstance(given[key], float) or given[key] != trainer[key]]
    worked_out = {f"trainer.{key}": [given[key], trainer[key]] for key in changed}
    if given["max_epochs"] is not None:
        worked_out["trainer.max_epochs"] = [given["max_epochs"], trainer["max_steps"]]
    return {**config, "trainer": trainer}, worked_out


def _share(key: str, share: float, split: str, batches: float | None) -> int:
    if batches is None:
        raise _unknown(key, share, "give a whole number")
    if count := int(share * batches + _NONE_OF):
        return count
    unit = "optimizer step" if key == _INTERVAL else "batch"
    raise UserError(
        f"trainer.{key}={share:g} of the {batches:,.4g} batches of {split} is not one {unit}: give a whole number, or "
        f"{'a smaller data.batch_size' if batches < 1 else f'{math.ceil(1e4 / batches) / 1e4:g} or more'}"
    )


def _unknown(key: str, value: float, way_out: str) -> UserError:
    return UserError(
        f"trainer.{key}={value:g} counts passes over train, and this data does not say how many samples one has "
        f"(SplitInfo.samples): {way_out}"
    )


def describe_passes(worked_out: Mapping[str, list[Any]]) -> list[str]:
    """A line for each flag that was worked out."""
    lines = []
    for key, (given, found) in worked_out.items():
        name = key.rpartition(".")[2]
        if name == "max_epochs":
            lines.append(f"{key}={given}: {found:,} optimizer steps")
        elif name == _INTERVAL:
            lines.append(f"{key}={given:g}: every {found:,} optimizer steps")
        elif found is None:
            lines.append(f"{key}={given:g} is no fewer batches than there are: no limit")
        else:
            lines.append(f"{key}={given:g}: {found:,} batch{'es' * (found != 1)}")
    return lines
