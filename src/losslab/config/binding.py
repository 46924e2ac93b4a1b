"""Bind the keys of components to the signatures of their classes: names, types, required arguments, defaults."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from enum import Enum
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin

from losslab.config.mistakes import nearest_key
from losslab.config.nearest import nearest
from losslab.config.optimizer_groups import GROUPS, LAYER_DECAY, PENALTIES, bind_groups, bind_own, without_effect
from losslab.config.schema import COMPONENTS, LEFT_OPEN, NAMED_NODES
from losslab.errors import UserError

LATE = {"model": {"vocab_size", "generator"}, "optimizer": {"params"}, "scheduler": {"max_steps", "optimizer"}}
"""Arguments that are known only once the data is; run.py supplies them."""
FROM_DATA = {"model": frozenset({"frame_width", "source_vocab_size"})}
"""Arguments that the data supplies where a constructor requires them and nobody set them."""
OFFERED = {"loggers": {"save_dir"}}
"""Arguments of named nodes that are supplied where a constructor takes them and nobody set them."""


OF_MODEL = "pretrained"
"""The value of data.tokenizer that stands for the model's own."""


def bind_components(config: dict[str, Any]) -> dict[str, Any]:
    """Bind every component's keys to its signature: names, types, required arguments. Defaults are filled in,
    so that a configuration that spells out a default is the same configuration as one that does not."""
    mistakes: list[str] = []
    config = complete_model(resolve_tied(config))
    bound = dict(config)
    for group in COMPONENTS:
        node = config[group]
        if group == "optimizer":
            own = bind_own(group, node, _own_keys(node), mistakes)
            node = {key: value for key, value in node.items() if key not in (GROUPS, *own)}
        from_data = FROM_DATA.get(group, frozenset())
        bound[group] = _bind(group, node, mistakes, late=LATE.get(group, set()), from_data=from_data)
    # One that changes nothing is none, whether it was said or not.
    bound["optimizer"] |= {key: value for key, value in own.items() if key not in without_effect(own)}
    bind_group = partial(_bind, late=LATE["optimizer"])
    for group in NAMED_NODES:
        bound[group] = {
            name: _bind_callback(f"{group}.{name}", node, mistakes)
            if group == "callbacks"
            else _bind(f"{group}.{name}", node, mistakes, late=OFFERED.get(group, set()) - node.keys())
            for name, node in config.get(group, {}).items()
        }
    if groups := bind_groups(config["optimizer"], bind_group, mistakes):
        bound["optimizer"][GROUPS] = groups
    if isinstance(profiler := config["trainer"].get("profiler"), dict):
        bound["trainer"] = {**config["trainer"], "profiler": _bind("trainer.profiler", profiler, mistakes, late=set())}
    raise_all(mistakes)
    return bound


def _own_keys(node: dict[str, Any]) -> list[str]:
    """Keys of an optimizer that are the framework's: those that its class does not take itself."""
    try:
        taken = inspect.signature(import_target(node["_target_"], "optimizer")).parameters
    except (UserError, KeyError, TypeError, ValueError):  # said where the optimizer is bound
        return []
    return [key for key in (*PENALTIES, LAYER_DECAY) if key not in taken]


def resolve_tied(config: dict[str, Any]) -> dict[str, Any]:
    """Work out `model.tie_embeddings: null` of a model of ours: true for tasks over a stream of tokens, whose classes
    are the embedding's rows; false for all others."""
    model = config["model"]
    if model.get("tie_embeddings", True) is not None or not str(model.get("_target_")).startswith("losslab."):
        return config
    try:
        tied = bool(getattr(import_target(config["task"]["_target_"], "task"), "of_stream", False))
    except UserError:  # said where the task is bound
        tied = True
    return {**config, "model": {**model, "tie_embeddings": tied}}


def complete_model(config: dict[str, Any]) -> dict[str, Any]:
    """Let a model whose class has `complete` (`losslab.contracts.Backbone`) fill in its node from files, and pass its
    context and tokenizer on to data that has left them open.

    Raises:
        UserError: where the model's files are not there, or another has no tokenizer to pass on.
    """
    data = config["data"]
    wants_tokenizer = data.get("tokenizer") == OF_MODEL
    try:
        target = import_target(config["model"]["_target_"], "model")
        task = import_target(config["task"]["_target_"], "task")
    except (UserError, KeyError, TypeError, ValueError):  # said where they are bound
        return config
    if not hasattr(target, "complete"):
        if wants_tokenizer:
            raise UserError(
                f"data.tokenizer={OF_MODEL} takes the tokenizer of model=pretrained, and {target.__name__} has none: "
                "give bpe, bytes, or the path of a tokenizer.json"
            )
        return config
    mistakes: list[str] = []
    node = _bind("model", config["model"], mistakes, late=LATE["model"])
    if mistakes:  # said where it is bound
        return config
    node, data = target.complete(node, task), dict(data)
    if data.get("context", 0) is None:
        data["context"] = node["context"]
    if wants_tokenizer:
        data["tokenizer"] = target.tokenizer(node)
        if "special_tokens" in data and data["special_tokens"] is None:
            data["special_tokens"] = True
    return {**config, "model": node, "data": data}


def as_asked(bound: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The bound configuration with what `complete_model` filled in as it was before: for the name of a run's folder.

    Args:
        config: what was bound.
    """
    found = dict(bound)
    for section in ("model", "data"):
        asked = {key: value for key, value in config[section].items() if value is None or value == OF_MODEL}
        found[section] = {key: asked.get(key, value) for key, value in bound[section].items()}
    return found


def bind_component(where: str, node: dict[str, Any]) -> dict[str, Any]:
    """Bind one component's keys to its signature, as `bind_components` does.

    Raises:
        UserError: with all of the mistakes.
    """
    mistakes: list[str] = []
    bound = _bind(where, node, mistakes, late=set())
    raise_all(mistakes)
    return bound


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


def _bind(
    where: str, node: dict[str, Any], mistakes: list[str], *, late: set[str], from_data: frozenset[str] = frozenset()
) -> dict[str, Any]:
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
            bound[key] = convert(f"{where}.{key}", value, hints.get(key, Any), mistakes)
    for key, parameter in named.items():
        if key in bound or (key in from_data and parameter.default is parameter.empty):
            continue
        if parameter.default is parameter.empty:
            mistakes.append(f"{where}.{key} is missing: {target.__name__} needs it")
        elif isinstance(parameter.default, Enum):
            bound[key] = parameter.default.value
        elif isinstance(parameter.default, bool | int | float | str | list | tuple | dict | None):
            bound[key] = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return bound


def _bind_callback(where: str, node: dict[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """A callback's node, in which null may stand for a metric and its better side: the task decides on them."""
    left_open = {key: None for key in LEFT_OPEN if key in node and node[key] is None}
    given = {key: value for key, value in node.items() if key not in left_open}
    bound = _bind(where, given, mistakes, late=set(left_open))
    return {key: (bound | left_open)[key] for key in dict.fromkeys((*node, *bound)) if key in bound or key in left_open}


def _hints(target: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # a third party's annotation that exists only for type checkers
        return {}


def convert(where: str, value: Any, hint: Any, mistakes: list[str]) -> Any:
    """Convert `value` to the type `hint` (a whole number for a float is fine); otherwise a mistake is noted."""
    fits, converted = _fit(value, hint)
    if not fits:
        if get_origin(hint) is Literal and isinstance(value, str):
            mistakes.append(f"{where} cannot be {value!r}: {nearest(value, map(str, get_args(hint)))}")
        else:
            mistakes.append(f"{where} must be {_name_kind(hint)}, not {value!r}")
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
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint)), value
    if hint is bool:
        return isinstance(value, bool), value
    if hint is int:
        if isinstance(value, float) and value.is_integer():  # 1e3
            return True, int(value)
        return isinstance(value, int) and not isinstance(value, bool), value
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            return number, float(value) if number else value
        except OverflowError:  # an integer beyond the largest float
            return False, value
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


def _name_kind(hint: Any) -> str:
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if hint in simple:
        return simple[hint]
    if get_origin(hint) in (Union, types.UnionType):
        known = [_name_kind(option) for option in get_args(hint) if option in simple or get_origin(option)]
        return " or ".join(dict.fromkeys(known))
    if get_origin(hint) in (list, tuple):
        return "a list of " + ", ".join(dict.fromkeys(_name_kind(a) for a in get_args(hint) if a is not Ellipsis))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return getattr(hint, "__name__", str(hint))


def raise_all(mistakes: list[str]) -> None:
    """Raises UserError with all of the mistakes, where there are any."""
    if mistakes:
        raise UserError("; ".join(mistakes))
