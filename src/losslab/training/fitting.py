"""Which losses go with which tasks."""

from __future__ import annotations

from typing import Any

import yaml

from losslab.choices import chosen, conf_dir
from losslab.config.binding import import_target
from losslab.contracts import TargetKind, Task
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.regularizers import Regularized

_NAMED = 8
"""The most losses that a sentence names."""


def check_kinds(loss: Loss, task: Task) -> None:
    """Refuse a loss whose targets a task does not have, or that reads what it does not give.

    Raises:
        UserError: naming both, the shipped losses that go with the task, and the shipped tasks that go with the loss.
    """
    ours, name = _named(loss, task), chosen("task", task)
    if loss.target_kind not in task.accepts:
        kinds = _any(sorted(kind.value for kind in task.accepts))
        problem = f"{ours} needs {loss.target_kind.value} as targets, and {name} has {kinds}"
    elif lacking := sorted(loss.needs.keys() - task.provides):
        problem = f"{ours} reads {lacking[0]!r} of each position, which {name} does not give"
    elif not fits(loss, task):
        problem = f"{ours}{_of_classes(loss)}, and the classes of {name} are the places of a sample"
    else:
        return
    losses = {each: other for each, other in _shipped("loss").items() if fits(other, task)}
    tasks = [each for each, other in _shipped("task").items() if fits(loss, other)]
    kinds_of = [*TargetKind]
    usual = sorted(losses, key=lambda each: (each != _default("loss"), kinds_of.index(losses[each].target_kind), each))
    ways = [f"this loss goes with task={_any(tasks)}"] if tasks else []
    ways += [f"this task goes with loss={_any(usual, more='losslab losses')}"] if usual else []
    raise UserError(f"{problem}: {', and '.join(ways)}" if ways else problem)


def _named(loss: Loss, task: Task) -> str:
    """The name of the loss, or of the regularizer that joined it and is at fault."""
    of_regularizers = isinstance(loss, Regularized) and fits(loss.loss, task)
    return "regularizers.mu_loss" if of_regularizers else chosen("loss", loss)


def _of_classes(loss: Loss) -> str:
    """The reason why a loss takes no other number of classes at each position, as the rest of a sentence."""
    if not loss.position_wise:
        return " compares positions with one another"
    if not loss.per_class:
        return " learns from a run's predictions of classes"
    settings = "" if type(loss).per_class or isinstance(loss, Regularized) else ", as it is set,"
    return f"{settings} has something for each class"


def fits(loss: Any, task: Any) -> bool:
    """Whether a loss, or its class, goes with a task: it has the targets, gives what the loss reads of them, and where
    it points, the loss takes any number of classes at each position."""
    takes_any = loss.position_wise and not loss.per_class and not loss.reads_teacher
    return loss.target_kind in task.accepts and loss.needs.keys() <= task.provides and (takes_any or not task.points)


def _any(names: list[str], *, more: str = "") -> str:
    """`a, b or c`; of many names the first ones, and the command that lists all."""
    named = names if len(names) <= _NAMED or not more else names[: _NAMED - 2]
    if left := len(names) - len(named):
        return f"{', '.join(named)} or {left} others ({more} lists all)"
    return " or ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _default(group: str) -> str:
    """The file of a group that a run has where nobody chooses."""
    defaults = yaml.safe_load((conf_dir() / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    return next(str(node[group]) for node in defaults if isinstance(node, dict) and group in node)


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
