"""The inputs that a model reads, against those that its task needs."""

from __future__ import annotations

import inspect

import torch

from losslab.choices import chosen
from losslab.contracts import Task, reads_ahead, reads_back_alone, reads_source
from losslab.errors import UserError


def check_reading(backbone: torch.nn.Module, task: Task) -> None:
    """Refuse a model that reads ahead for a task that predicts what follows, one that does not for a task that hides
    tokens in the middle or points at places, and one that reads a source where there is none, or none where there is.
    Raises UserError naming both."""
    if task.reads_source != reads_source(backbone):
        one, other = chosen("model", backbone), chosen("task", task)
        raise UserError(
            f"{other} reads a source beside its target, and {one} does not read it: choose model=encoder_decoder"
            if task.reads_source
            else f"{one} reads a source beside its target, and {other} gives none: choose task=translation, or "
            "model=decoder"
        )
    if (task.masks or task.points) and reads_back_alone(backbone):
        options = inspect.signature(type(backbone)).parameters
        cure = "model.bidirectional=true" if "bidirectional" in options else "model=encoder"
        does = "hides tokens that" if task.masks else "chooses places that"
        raise UserError(
            f"{chosen('model', backbone)} reads what stands before a position alone, and "
            f"{chosen('task', task)} {does} both sides tell about: choose {cure}"
        )
    if task.causal and reads_ahead(backbone):
        options = inspect.signature(type(backbone)).parameters
        cure = "model.bidirectional=false" if "bidirectional" in options else "model=decoder"
        raise UserError(
            f"{chosen('model', backbone)} reads the text on both sides of a position, and "
            f"{chosen('task', task)} predicts what follows it, which would be no task: choose {cure}"
        )
