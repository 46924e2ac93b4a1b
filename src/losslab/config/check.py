"""Check a run's own keys against their dataclass, all mistakes at once, and work out the values that follow from them.

No torch is imported; `config.binding` does the same for the keys of components, which it imports.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, get_origin

from losslab.config.binding import convert, raise_all
from losslab.config.flags import check_flags
from losslab.config.foreign import VALUES
from losslab.config.mistakes import nearest_key
from losslab.config.nearest import nearest
from losslab.config.schema import (
    COMPONENTS,
    DEFAULT_MAX_STEPS,
    NAMED_NODES,
    CheckpointsConfig,
    RegularizersConfig,
    RunConfig,
    SeedsConfig,
    TrainerConfig,
)
from losslab.config.streams import mistakes_of, settled
from losslab.errors import UserError

_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true")
_SHORT = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_MOST_THREADS = 1024
"""More than any machine has; each costs memory before the first of them computes."""
_INTERIM_SHARE, _FEWEST_INTERIM = 8, 4096
"""A validation scores one token for 8 that were trained since the one before. A scored token costs less than half of a
trained one, and the fit of the temperature adds half of that: together less than a tenth of the time."""
_POSITIVE = [
    "max_steps",
    "max_tokens",
    "max_epochs",
    "log_every_n_steps",
    "gradient_clip_val",
    "micro_batch_size",
    "accumulate_grad_batches",
    "devices",
    "num_nodes",
    "threads",
]


def check_run(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the run's own keys checked and their defaults worked out. No torch is imported."""
    config = {**config, **{group: _without_null(config.get(group)) for group in NAMED_NODES}}
    mistakes: list[str] = []
    missing: list[str] = []
    for prefix, kind in (
        ("", RunConfig),
        ("regularizers.", RegularizersConfig),
        ("trainer.", TrainerConfig),
        ("checkpoints.", CheckpointsConfig),
        ("seeds.", SeedsConfig),
    ):
        section = config.get(prefix[:-1], {}) if prefix else config
        if not isinstance(section, dict):
            raise UserError(f"{prefix[:-1]} must hold keys of its own, not {section!r}")
        known = {f.name for f in dataclasses.fields(kind)}
        names = {f"{prefix}{name}" for name in known}
        missing += [f"{prefix}{key} cannot be taken away" for key in sorted(known - section.keys())]
        for key in sorted(map(str, section.keys() - known)):
            mistakes.append(f"there is no key '{prefix}{key}': {nearest_key(f'{prefix}{key}', names)}")
    raise_all(missing)
    # Hydra has checked the types of what was typed; those of a configuration out of a folder, nobody has.
    wrong: list[str] = []
    config = _typed(config, RunConfig, "", wrong)
    raise_all(mistakes + wrong if wrong else [])
    trainer = dict(config["trainer"])
    for key in _POSITIVE:
        if trainer.get(key) is not None and not trainer[key] > 0:
            way_out = VALUES.get(f"trainer.{key}", "")
            mistakes.append(f"trainer.{key} must be above 0, not {trainer[key]}{way_out}")
    if (trainer.get("interim_eval_tokens") or 0) < 0:
        mistakes.append(
            f"trainer.interim_eval_tokens must be above 0, or 0 for all of val, not {trainer['interim_eval_tokens']}"
        )
    if (trainer.get("threads") or 1) > _MOST_THREADS:
        mistakes.append(f"trainer.threads must be at most {_MOST_THREADS}, not {trainer['threads']}")
    if not 0 <= trainer["r_drop"] < math.inf:
        mistakes.append(f"trainer.r_drop must be 0 or above and finite, not {trainer['r_drop']}")
    for key, value in config["checkpoints"].items():
        if not value > 0:
            mistakes.append(f"checkpoints.{key} must be above 0, not {value}")
    name = config["name"]
    if not name or name.startswith((".", "-")) or "/" in name or "\\" in name:
        mistakes.append(f"name must be a plain folder name, not {name!r}")
    trainer = check_flags(trainer, mistakes)
    if trainer["fast_dev_run"] is not None and config["continue_from"] is not None:
        mistakes.append("trainer.fast_dev_run keeps no checkpoint and continues none: leave out continue_from")
    if config["continue_from"] is not None and config["init_from"] is not None:
        mistakes.append("give continue_from (a run with all its state) or init_from (weights alone), not both")
    mistakes += [
        f"{key} must be a path, not an empty one" for key in ("continue_from", "init_from") if config[key] == ""
    ]
    precision = _SHORT.get(str(trainer["precision"]), str(trainer["precision"]))
    trainer["precision"] = precision
    if precision not in _PRECISIONS:
        mistakes.append(f"trainer.precision cannot be {precision!r}: {nearest(precision, _PRECISIONS)}")
    mistakes += mistakes_of({**config, "trainer": trainer})
    for group in COMPONENTS:
        if not isinstance(config[group].get("_target_"), str):
            mistakes.append(f"{group} has no _target_: choose one with {group}=…")
    for group in NAMED_NODES:
        for name, node in config[group].items():
            if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
                mistakes.append(f"{group}.{name} has no _target_: choose one with {group}=…, or name a class")
    raise_all(mistakes)
    return settled({**config, "trainer": trainer})


def resolve_budget(config: dict[str, Any]) -> dict[str, Any]:
    """Turn the budget into optimizer steps, and fill the validation interval that follows from it, and how many tokens
    a validation scores."""
    trainer, data = dict(config["trainer"]), config["data"]
    if "batch_size" not in data:
        raise UserError(
            f"data: {data['_target_']} takes no batch_size, which every data set has: samples in one optimizer step"
        )
    for key in ("batch_size", "context"):
        if key in data and (not isinstance(data[key], int) or isinstance(data[key], bool)):
            raise UserError(f"data.{key} must be a whole number, not {data[key]}")
        if key in data and not data[key] > 0:
            raise UserError(f"data.{key} must be above 0, not {data[key]}")
    tokens_per_step = nominal_tokens(data)
    if steps := trainer.get("fast_dev_run"):  # which older configurations have not
        trainer |= {"max_steps": steps, "max_tokens": None, "max_epochs": None, "val_check_interval": steps}
    if trainer["max_tokens"] is not None:
        if tokens_per_step is None:
            raise UserError(
                "trainer.max_tokens counts tokens of samples of one length (data.context), which this data has not: "
                "give trainer.max_steps"
            )
        trainer["max_steps"] = math.ceil(trainer["max_tokens"] / tokens_per_step)
        trainer["max_tokens"] = None
    if trainer["max_steps"] is None:
        trainer["max_steps"] = DEFAULT_MAX_STEPS
    if trainer["val_check_interval"] is None:
        trainer["val_check_interval"] = max(1, trainer["max_steps"] // 10)
    if trainer["interim_eval_tokens"] is None and tokens_per_step is None:
        trainer["interim_eval_tokens"] = 0
    elif trainer["interim_eval_tokens"] is None:
        between = trainer["val_check_interval"] * tokens_per_step
        trainer["interim_eval_tokens"] = max(_FEWEST_INTERIM, between // _INTERIM_SHARE)
    return {**config, "trainer": trainer}


def nominal_tokens(data: dict[str, Any]) -> int | None:
    """Tokens of an optimizer step, counted as the budget counts them; None for samples of other things."""
    if isinstance(data.get("batch_tokens"), int) and data["batch_tokens"] > 0:
        return int(data["batch_tokens"])
    return int(data["batch_size"] * data["context"]) if "context" in data else None


def check_warmup(config: dict[str, Any], overrides: list[str]) -> str | None:
    """Compare the schedule's warm-up with the budget.

    Args:
        config: after `check_run`.
        overrides: as typed; a warm-up that nobody typed is that of a file, written for longer runs.

    Returns:
        A note where a run is shorter than its file's warm-up.

    Raises:
        UserError: where the warm-up that was typed is longer than the run.
    """
    if config["trainer"]["fast_dev_run"] is not None:  # which tries a longer run's configuration
        return None
    warmup, data = config["scheduler"].get("warmup_steps"), config["data"]
    sizes = [data.get(key, 1) for key in ("batch_size", "context")]
    if not isinstance(warmup, int | float) or not all(isinstance(size, int) for size in sizes):
        return None  # of another kind, or answered where the signature is known
    steps = resolve_budget(config)["trainer"]["max_steps"]
    if config["trainer"]["max_epochs"] is not None or warmup <= steps or not warmup:  # passes: once the data is known
        return None
    if any(override.lstrip("+").startswith("scheduler.warmup_steps=") for override in overrides):
        raise UserError(
            f"scheduler.warmup_steps={warmup:g} is beyond the budget of {steps} optimizer steps: the run would end "
            "within its warm-up"
        )
    return (
        f"a run of {steps} optimizer steps ends within its warm-up of {warmup:g}; scheduler.warmup_steps=N gives it a "
        "shorter one"
    )


def resolve_split(config: dict[str, Any]) -> dict[str, Any]:
    """Fill micro_batch_size and accumulate_grad_batches so that the ranks' micro-batches make up batch_size exactly."""
    trainer = dict(config["trainer"])
    batch_size = config["data"]["batch_size"]
    ranks = trainer["devices"] * trainer["num_nodes"]
    micro, accumulate = trainer["micro_batch_size"], trainer["accumulate_grad_batches"]
    if micro is None:
        micro = batch_size // (ranks * (accumulate or 1))
    if accumulate is None:
        accumulate = batch_size // (ranks * max(micro, 1))
    if micro * accumulate * ranks != batch_size:
        raise UserError(
            f"data.batch_size={batch_size} is not devices × micro_batch_size × accumulate_grad_batches "
            f"= {ranks} × {micro or 1} × {accumulate or 1}; choose values whose product it is"
        )
    trainer |= {"micro_batch_size": micro, "accumulate_grad_batches": accumulate}
    return {**config, "trainer": trainer}


def _without_null(nodes: Any) -> Any:
    """Nodes by name, of which `callbacks.timer=null` takes one away; older configurations have none."""
    if nodes is None:
        return {}
    return {name: node for name, node in nodes.items() if node is not None} if isinstance(nodes, dict) else nodes


def _typed(section: dict[str, Any], kind: type, prefix: str, mistakes: list[str]) -> dict[str, Any]:
    """The run's own keys as their dataclass annotates them."""
    hints = typing.get_type_hints(kind)
    typed = dict(section)
    for key, value in section.items():
        if key not in hints:
            continue
        if dataclasses.is_dataclass(hints[key]):
            typed[key] = _typed(value, hints[key], f"{prefix}{key}.", mistakes)
        elif get_origin(hints[key]) is dict:
            if not isinstance(value, dict):
                wanted = "named nodes, each with a _target_" if key in NAMED_NODES else "a component with a _target_"
                mistakes.append(f"{prefix}{key} must be {wanted}, not {value!r}")
        else:
            typed[key] = convert(f"{prefix}{key}", value, hints[key], mistakes)
    return typed
