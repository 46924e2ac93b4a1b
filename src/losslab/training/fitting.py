"""Which losses go with which tasks."""

from __future__ import annotations

from typing import Any

import yaml

from losslab.config.binding import import_target
from losslab.config.paths import conf_dir
from losslab.contracts import Task
from losslab.errors import UserError
from losslab.losses.base import Loss


def check_kinds(loss: Loss, task: Task) -> None:
    """Refuse a loss whose targets a task does not have, or that reads what it does not give.

    Raises:
        UserError: naming both, the shipped losses that go with the task, and the shipped tasks that go with the loss.
    """
    ours, name = type(loss).__name__, type(task).__name__
    if loss.target_kind not in task.accepts:
        kinds = " or ".join(sorted(kind.value for kind in task.accepts))
        problem = f"loss={ours} needs {loss.target_kind.value} as targets, and task={name} has {kinds}"
    elif lacking := sorted(loss.needs.keys() - task.provides):
        problem = f"loss={ours} reads {lacking[0]!r} of each position, which task={name} does not give"
    else:
        return
    losses = [each for each, other in _shipped("loss").items() if _fits(other, task)]
    tasks = [each for each, other in _shipped("task").items() if _fits(loss, other)]
    ways = [f"this loss goes with task={_any(tasks)}"] if tasks else []
    ways += [f"this task goes with loss={_any(losses)}"] if losses else []
    raise UserError(f"{problem}: {', and '.join(ways)}" if ways else problem)


def _fits(loss: Any, task: Any) -> bool:
    return loss.target_kind in task.accepts and loss.needs.keys() <= task.provides


def _any(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _shipped(group: str) -> dict[str, Any]:
    """Name → component of each file in a group; its class, where it has no settings of its own."""
    found = {}
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(node, dict) and isinstance(node.get("_target_"), str):
            kind = import_target(node["_target_"], group)
            settings = {name: value for name, value in node.items() if name not in ("_target_", "defaults")}
            try:
                found[path.stem] = kind(**settings)
            except (UserError, TypeError):  # its terms, or its teacher, are a person's to choose
                found[path.stem] = kind
    return found
