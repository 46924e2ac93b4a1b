"""Make components from their nodes: only classes. Which ones a folder may name: trust.py."""

from __future__ import annotations

import inspect
from typing import Any

from losslab.config.binding import import_target
from losslab.errors import UserError


def build(node: dict[str, Any], where: str, **late: Any) -> Any:
    """Instantiate a bound node; nested nodes too. `late` are the arguments that only now are known."""
    arguments = {
        key: build(value, f"{where}.{key}") if isinstance(value, dict) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    target = import_target(node["_target_"], where)
    if inspect.isabstract(target):
        lacking = ", no ".join(sorted(target.__abstractmethods__))
        raise UserError(f"{where}: {target.__name__} has no {lacking}, which every class of its kind defines")
    try:
        return target(**arguments, **late)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor raises, it is the settings that it refuses
        raise UserError(f"{where}: {target.__name__} refuses its settings: {type(error).__name__}: {error}") from error
