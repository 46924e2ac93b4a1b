"""The shipped configuration, and the names under which people choose its classes: task=lm, loss=cross_entropy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

import losslab
from losslab.errors import UserError


def conf_dir() -> Path:
    """The wheel's losslab/conf, or the checkout's conf/ beside src/ in an editable install."""
    package = Path(losslab.__file__).resolve().parent
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise UserError(f"losslab's configuration is missing beside {package}; install the package again")


def chosen(key: str, component: object) -> str:
    """Spell a component, or its class, as it is chosen: `loss=cross_entropy`. It is the file of the group that alone
    names this class; a class of a person's own has its name instead.

    Args:
        key: a group, or a key within one (`loss.inner`).
    """
    kind = component if isinstance(component, type) else type(component)
    names = _names(key.partition(".")[0])
    return f"{key}={names.get(f'{kind.__module__}.{kind.__qualname__}', kind.__name__)}"


@cache
def _names(group: str) -> dict[str, str]:
    """Class → the file that names it, where a single one does."""
    found: dict[str, list[str]] = {}
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(node, dict) and isinstance(node.get("_target_"), str):
            found.setdefault(node["_target_"], []).append(path.stem)
    return {target: names[0] for target, names in found.items() if len(names) == 1}
