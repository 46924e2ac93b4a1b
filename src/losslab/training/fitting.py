"""Losses and tasks that fit each other: their kinds of targets, and what a loss reads of each position."""

from __future__ import annotations

import yaml

from losslab.config.binding import import_target
from losslab.config.paths import conf_dir
from losslab.contracts import Task
from losslab.errors import UserError
from losslab.losses.base import Loss

_SHOWN = 8


def check_kinds(loss: Loss, task: Task) -> None:
    """Refuse a loss whose targets a task does not have. Raises UserError naming both, and losses that fit."""
    name = type(task).__name__
    if loss.target_kind not in task.accepts:
        kinds = " or ".join(sorted(kind.value for kind in task.accepts))
        raise UserError(
            f"loss={type(loss).__name__} needs {loss.target_kind.value} as targets, and task={name} has {kinds}: "
            f"{_that_fit(task)}"
        )
    if lacking := sorted(loss.needs.keys() - task.provides):
        raise UserError(
            f"loss={type(loss).__name__} reads {lacking[0]!r} of each position, which task={name} does not give"
        )


def _that_fit(task: Task) -> str:
    """The losses of conf/loss whose targets a task has."""
    found = []
    for path in sorted((conf_dir() / "loss").glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        kind = import_target(str(node.get("_target_")), "loss")
        if kind.target_kind in task.accepts:
            found.append(path.stem)
    if not found:
        return "no loss of losslab fits, write one (docs/own_loss.md)"
    shown, more = ", ".join(found[:_SHOWN]), len(found) > _SHOWN
    return f"{shown} and others (losslab losses) fit" if more else f"{shown} fit{'s' if len(found) == 1 else ''}"
