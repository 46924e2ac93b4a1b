"""Check a composed configuration: the run's keys against their dataclass, each component's against its signature.

`check_run` needs no torch; `bind_components` imports the components. Both report all mistakes at once.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import types
import typing
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin

from losslab.config.mistakes import nearest_key
from losslab.config.nearest import nearest
from losslab.config.optimizer_groups import GROUPS, bind_groups
from losslab.config.schema import (
    COMPONENTS,
    DEFAULT_MAX_STEPS,
    CheckpointsConfig,
    LoggerConfig,
    RegularizersConfig,
    RunConfig,
    TrainerConfig,
)
from losslab.errors import UserError

LATE = {"model": {"vocab_size", "generator"}, "optimizer": {"params"}, "scheduler": {"max_steps", "optimizer"}}
"""Arguments that are known only once the data is; run.py supplies them."""

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
    "val_check_interval",
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
    mistakes: list[str] = []
    missing: list[str] = []
    for prefix, kind in (
        ("", RunConfig),
        ("regularizers.", RegularizersConfig),
        ("trainer.", TrainerConfig),
        ("checkpoints.", CheckpointsConfig),
        ("logger.", LoggerConfig),
    ):
        section = config.get(prefix[:-1], {}) if prefix else config
        if not isinstance(section, dict):
            raise UserError(f"{prefix[:-1]} must hold keys of its own, not {section!r}")
        known = {f.name for f in dataclasses.fields(kind)}
        names = {f"{prefix}{name}" for name in known}
        missing += [f"{prefix}{key} cannot be taken away" for key in sorted(known - section.keys())]
        for key in sorted(map(str, section.keys() - known)):
            mistakes.append(f"there is no key '{prefix}{key}': {nearest_key(f'{prefix}{key}', names)}")
    _raise(missing)
    # Hydra has checked the types of what was typed; those of a configuration out of a folder, nobody has.
    wrong: list[str] = []
    config = _typed(config, RunConfig, "", wrong)
    _raise(mistakes + wrong if wrong else [])
    trainer = dict(config["trainer"])
    for key in _POSITIVE:
        if trainer.get(key) is not None and not trainer[key] > 0:
            mistakes.append(f"trainer.{key} must be above 0, not {trainer[key]}")
    if (trainer.get("interim_eval_tokens") or 0) < 0:
        mistakes.append(
            f"trainer.interim_eval_tokens must be above 0, or 0 for all of val, not {trainer['interim_eval_tokens']}"
        )
    if (trainer.get("threads") or 1) > _MOST_THREADS:
        mistakes.append(f"trainer.threads must be at most {_MOST_THREADS}, not {trainer['threads']}")
    for key, value in config["checkpoints"].items():
        if not value > 0:
            mistakes.append(f"checkpoints.{key} must be above 0, not {value}")
    if config["seed"] < 0:
        mistakes.append(f"seed must be 0 or above, not {config['seed']}")
    name = config["name"]
    if not name or name.startswith((".", "-")) or "/" in name or "\\" in name:
        mistakes.append(f"name must be a plain folder name, not {name!r}")
    if trainer.get("max_steps") is not None and trainer.get("max_tokens") is not None:
        mistakes.append("give trainer.max_steps or trainer.max_tokens, not both")
    if config["continue_from"] is not None and config["init_from"] is not None:
        mistakes.append("give continue_from (a run with all its state) or init_from (weights alone), not both")
    mistakes += [
        f"{key} must be a path, not an empty one" for key in ("continue_from", "init_from") if config[key] == ""
    ]
    precision = _SHORT.get(str(trainer["precision"]), str(trainer["precision"]))
    trainer["precision"] = precision
    if precision not in _PRECISIONS:
        mistakes.append(f"trainer.precision cannot be {precision!r}: {nearest(precision, _PRECISIONS)}")
    for group in COMPONENTS:
        if not isinstance(config[group].get("_target_"), str):
            mistakes.append(f"{group} has no _target_: choose one with {group}=…")
    _raise(mistakes)
    return {**config, "trainer": trainer}


def resolve_budget(config: dict[str, Any]) -> dict[str, Any]:
    """Turn the budget into optimizer steps, and fill the validation interval that follows from it, and how many tokens
    a validation scores."""
    trainer = dict(config["trainer"])
    for key in ("batch_size", "context"):
        if not config["data"][key] > 0:
            raise UserError(f"data.{key} must be above 0, not {config['data'][key]}")
    tokens_per_step = config["data"]["batch_size"] * config["data"]["context"]
    if trainer["max_tokens"] is not None:
        trainer["max_steps"] = math.ceil(trainer["max_tokens"] / tokens_per_step)
        trainer["max_tokens"] = None
    if trainer["max_steps"] is None:
        trainer["max_steps"] = DEFAULT_MAX_STEPS
    if trainer["val_check_interval"] is None:
        trainer["val_check_interval"] = max(1, trainer["max_steps"] // 10)
    if trainer["interim_eval_tokens"] is None:
        between = trainer["val_check_interval"] * tokens_per_step
        trainer["interim_eval_tokens"] = max(_FEWEST_INTERIM, between // _INTERIM_SHARE)
    return {**config, "trainer": trainer}


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
    warmup, data = config["scheduler"].get("warmup_steps"), config["data"]
    if not isinstance(warmup, int | float) or not all(isinstance(data.get(k), int) for k in ("batch_size", "context")):
        return None  # of another kind, or answered where the signature is known
    steps = resolve_budget(config)["trainer"]["max_steps"]
    if warmup <= steps or not warmup:
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


def bind_components(config: dict[str, Any]) -> dict[str, Any]:
    """Bind every component's keys to its signature: names, types, required arguments. Defaults are filled in,
    so that a configuration that spells out a default is the same configuration as one that does not."""
    mistakes: list[str] = []
    bound = dict(config)
    for group in COMPONENTS:
        node = {key: value for key, value in config[group].items() if (group, key) != ("optimizer", GROUPS)}
        bound[group] = _bind(group, node, mistakes, late=LATE.get(group, set()))
    bind_group = partial(_bind, late=LATE["optimizer"])
    if groups := bind_groups(config["optimizer"], bind_group, mistakes):
        bound["optimizer"][GROUPS] = groups
    _raise(mistakes)
    return bound


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
                mistakes.append(f"{prefix}{key} must be a component with a _target_, not {value!r}")
        else:
            typed[key] = _convert(f"{prefix}{key}", value, hints[key], mistakes)
    return typed


def import_target(path: str, where: str) -> Any:
    """The class that a `_target_` names."""
    module_name, _, attribute = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"{where}._target_ {path!r} cannot be imported: it is no dotted path such as my_package.MyLoss")
    if not module_name:
        raise UserError(f"{where}._target_ must be a dotted path such as my_package.MyLoss, not {path!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{where}._target_ {path!r} cannot be imported: {error}") from None
    except Exception as error:  # a person's module may raise anything while it is imported
        raise UserError(f"{where}._target_ {path!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        classes = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__.startswith(module_name)]
        raise UserError(f"{module_name} has no {attribute!r}: {nearest(attribute, classes)}")
    target = getattr(module, attribute)
    if not inspect.isclass(target):
        raise UserError(f"{where}._target_ {path!r} is not a class")
    return target


def _bind(where: str, node: dict[str, Any], mistakes: list[str], *, late: set[str]) -> dict[str, Any]:
    try:
        target = import_target(node["_target_"], where)
    except UserError as error:
        mistakes.append(str(error))
        return node
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and n not in late}
    hints = _hints(target)
    bound: dict[str, Any] = {"_target_": node["_target_"]}
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in named and not takes_any:
            known = {f"{where}.{name}" for name in named}
            mistakes.append(f"there is no key '{where}.{key}': {nearest_key(f'{where}.{key}', known)}")
        elif isinstance(value, dict) and "_target_" in value:
            bound[key] = _bind(f"{where}.{key}", value, mistakes, late=set())
        else:
            bound[key] = _convert(f"{where}.{key}", value, hints.get(key, Any), mistakes)
    for key, parameter in named.items():
        if key in bound:
            continue
        if parameter.default is parameter.empty:
            mistakes.append(f"{where}.{key} is missing: {target.__name__} needs it")
        elif isinstance(parameter.default, bool | int | float | str | list | tuple | dict | None):
            bound[key] = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return bound


def _hints(target: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # a third party's annotation that exists only for type checkers
        return {}


def _convert(where: str, value: Any, hint: Any, mistakes: list[str]) -> Any:
    """`value` as `hint` wants it (a whole number for a float is fine); otherwise a mistake is noted."""
    fits, converted = _fit(value, hint)
    if not fits:
        if get_origin(hint) is Literal and isinstance(value, str):
            mistakes.append(f"{where} cannot be {value!r}: {nearest(value, map(str, get_args(hint)))}")
        else:
            mistakes.append(f"{where} must be {_describe(hint)}, not {value!r}")
    return converted


def _fit(value: Any, hint: Any) -> tuple[bool, Any]:
    origin = get_origin(hint)
    if hint is Any:
        return True, value
    if hint is None or hint is type(None):
        return value is None, value
    if origin in (Union, types.UnionType):
        for option in get_args(hint):
            fits, converted = _fit(value, option)
            if fits:
                return True, converted
        return False, value
    if origin is Literal:
        return value in get_args(hint), value
    if hint is bool:
        return isinstance(value, bool), value
    if hint is int:
        if isinstance(value, float) and value.is_integer():  # 1e3
            return True, int(value)
        return isinstance(value, int) and not isinstance(value, bool), value
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number, float(value) if number else value
    if hint is str:
        return isinstance(value, str), value
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            return False, value
        arguments = get_args(hint)
        if origin is tuple and Ellipsis not in arguments:
            pairs = list(zip(value, arguments, strict=False)) if len(value) == len(arguments) else None
            if pairs is None:
                return False, value
        else:
            pairs = [(item, arguments[0]) for item in value]
        fitted = [_fit(item, kind) for item, kind in pairs]
        return all(fits for fits, _ in fitted), [converted for _, converted in fitted]
    if inspect.isclass(hint):
        return isinstance(value, hint), value
    return True, value


def _describe(hint: Any) -> str:
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if hint in simple:
        return simple[hint]
    if get_origin(hint) in (Union, types.UnionType):
        known = [_describe(option) for option in get_args(hint) if option in simple or get_origin(option)]
        return " or ".join(dict.fromkeys(known))
    if get_origin(hint) in (list, tuple):
        return "a list of " + ", ".join(dict.fromkeys(_describe(a) for a in get_args(hint) if a is not Ellipsis))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return getattr(hint, "__name__", str(hint))


def _raise(mistakes: list[str]) -> None:
    if mistakes:
        raise UserError("; ".join(mistakes))
