"""`optimizer.groups`: settings, or an optimizer, for some of the parameters. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from losslab.config.nearest import nearest

GROUPS = "groups"
MATCH = "match"
"""Key of a group: a role or a pattern of parameter names, or a list of them; the group's own name unless given."""
ROLES = ("embedding", "norm", "matrix", "head", "bias", "loss")
INHERITED = {"lr", "weight_decay"}
REST = ""
"""The parameters that no group claims."""
PENALTIES = ("l1", "l2")
"""Keys of an optimizer and of its groups: λ of λ Σ |w| and λ Σ w², added to the objective once an optimizer step."""
LAYER_DECAY = "layer_decay"
"""Key of an optimizer: the learning rate of each layer, as a share of that of the layer above it."""

Bind = Callable[[str, dict[str, Any], list[str]], dict[str, Any]]


def bind_groups(node: dict[str, Any], bind: Bind, mistakes: list[str]) -> dict[str, Any]:
    """The bound groups of an optimizer's node; {} where it has none.

    A group without a `_target_` holds settings of the main optimizer, and keeps only those that were given. One that
    has an optimizer of its own keeps that one's defaults, but not those of INHERITED: they are the main optimizer's.

    Args:
        bind: (place, node with _target_, mistakes) → the node bound to its class.
        mistakes: takes what is wrong.
    """
    groups = node.get(GROUPS) or {}
    if not isinstance(groups, dict):
        mistakes.append(f"optimizer.{GROUPS} must hold groups by name, not {groups!r}")
        return {}
    bound: dict[str, Any] = {}
    for name, group in groups.items():
        where = f"optimizer.{GROUPS}.{name}"
        if group is None:
            continue  # a shipped group that was taken away
        if not isinstance(group, dict):
            mistakes.append(f"{where} must hold settings such as lr=…, not {group!r}")
            continue
        _check_match(where, str(name), group.get(MATCH, name), mistakes)
        penalties = bind_own(where, group, PENALTIES, mistakes)
        settings = {
            k: v for k, v in group.items() if k not in (MATCH, *penalties) and not (k in INHERITED and v is None)
        }
        whole = bind(
            where, settings if "_target_" in settings else {"_target_": node["_target_"], **settings}, mistakes
        )
        filled_in = whole.keys() - settings.keys()
        dropped = filled_in & INHERITED if "_target_" in settings else filled_in | {"_target_"}
        whole = {key: value for key, value in whole.items() if key not in dropped}
        bound[str(name)] = whole | penalties | ({MATCH: group[MATCH]} if MATCH in group else {})
    return bound


def bind_own(where: str, node: dict[str, Any], keys: Sequence[str], mistakes: list[str]) -> dict[str, float]:
    """Those of `keys` that a node has, checked."""
    found = {key: node[key] for key in keys if key in node}
    for key, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key == LAYER_DECAY:
            if not (number and 0 < value <= 1):
                mistakes.append(f"{where}.{key} must be above 0 and at most 1, not {value!r}")
        elif not (number and 0 <= value < math.inf):
            mistakes.append(f"{where}.{key} must be 0 or above and finite, not {value!r}")
    return {key: float(value) if isinstance(value, int | float) else value for key, value in found.items()}


def without_effect(own: dict[str, float]) -> list[str]:
    """Keys of an optimizer that hold the value under which they change nothing."""
    return [key for key, value in own.items() if value == (1 if key == LAYER_DECAY else 0)]


def _check_match(where: str, name: str, match: Any, mistakes: list[str]) -> None:
    patterns = match if isinstance(match, list) else [match]
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        mistakes.append(f"{where}.{MATCH} must be a role or a pattern of names, or a list of them, not {match!r}")
        return
    for pattern in patterns:
        if pattern not in ROLES and not any(sign in pattern for sign in ".*?["):
            mistakes.append(
                f"{where}.{MATCH}: {pattern!r} is no role and no name of a parameter: {nearest(pattern, ROLES)}; "
                "patterns look like backbone.layers.0.*"
            )
