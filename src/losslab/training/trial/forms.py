"""Members, signatures and declarations of components, as soon as they are constructed, on whichever device."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from losslab.contracts import DataInfo, DataModule, TargetKind, Task, blocks_of, flops_of
from losslab.errors import UserError
from losslab.metric import Metric, to_info


def check_model(backbone: Any, name: str) -> None:
    """Refuse what is no `Backbone`.

    Raises:
        UserError: naming the class and what it lacks.
    """
    if not isinstance(backbone, nn.Module):
        raise UserError(f"model: {name} must derive from torch.nn.Module")
    if "_parameters" not in vars(backbone):
        raise UserError(f"model: {name}.__init__ does not call super().__init__(), which comes first")
    width = getattr(backbone, "width", None)
    if not isinstance(width, int) or isinstance(width, bool) or width <= 0:
        has = "no width" if width is None else f"width={width!r}"
        raise UserError(
            f"model: {name} has {has}: set self.width, the size D of the hidden states that it returns, a whole number"
        )
    if type(backbone).forward is nn.Module.forward:
        raise UserError(f"model: {name} has no forward(inputs), which maps a dict of inputs to hidden states")
    try:
        inspect.signature(backbone.forward).bind({})
    except TypeError:
        wants = ", ".join(inspect.signature(backbone.forward).parameters)
        raise UserError(
            f"model: {name}.forward takes ({wants}), and is called with one dict of named inputs: write "
            "forward(self, inputs), or wrap the module in an adapter (losslab.models.adapters)"
        ) from None
    own = {id(module) for module in backbone.modules()}
    if strangers := [block for block in blocks_of(backbone) if id(block) not in own]:
        kind = type(strangers[0]).__name__
        raise UserError(
            f"model: {name}.blocks() returns a {kind} that is none of its submodules: keep its layers in an "
            "nn.ModuleList, and return those"
        )
    flops = flops_of(backbone)
    if flops is not None and (not isinstance(flops, int) or isinstance(flops, bool) or flops <= 0):
        raise UserError(f"model: {name}.flops_per_sample() returns {flops!r}; it must be a whole number above 0")


def check_task(task: Any) -> None:
    """Refuse what is no `Task`, or declares no metrics that can be told apart.

    Raises:
        UserError: naming the class and what it lacks.
    """
    name = type(task).__name__
    if not isinstance(task, Task):
        raise UserError(f"task: {name} must derive from losslab.contracts.Task")
    if lacking := [key for key in ("accepts", "metrics", "primary") if not hasattr(task, key)]:
        raise UserError(
            f"task: {name} does not declare {' and '.join(lacking)}, which every task has as class variables"
        )
    if not task.accepts or not all(isinstance(kind, TargetKind) for kind in task.accepts):
        kinds = ", ".join(f"TargetKind.{kind.name}" for kind in TargetKind)
        raise UserError(f"task: {name}.accepts must be a set of one or more of {kinds}")
    if wrong := [metric for metric in task.metrics if not isinstance(metric, Metric)]:
        raise UserError(f"task: {name}.metrics holds {wrong[0]!r}, which is no losslab.contracts.Metric")
    to_info(task.metrics, task.primary)


def check_data(data: Any) -> None:
    """Refuse what is no `DataModule`.

    Raises:
        UserError: naming the class and what it lacks.
    """
    name = type(data).__name__
    if not isinstance(data, DataModule):
        raise UserError(f"data: {name} must derive from losslab.contracts.DataModule")
    if not hasattr(data, "batch_size"):
        raise UserError(
            f"data: {name} has no batch_size: its __init__ calls super().__init__(batch_size=…, val_batch_size=…)"
        )
    if lacking := lacking_methods(type(data)):
        raise UserError(f"data: {name} has no {', no '.join(lacking)}: see losslab.contracts.DataModule")
    if data.splits[0] != "train" or not {"val", "test"} <= set(data.splits):
        raise UserError(f"data: {name}.splits is {data.splits}; it begins with train, and holds val and test")


def lacking_methods(kind: type) -> list[str]:
    """The abstract methods that a class does not define."""
    return [name for name in dir(kind) if getattr(getattr(kind, name, None), "__isabstractmethod__", False)]


def check_info(data: DataModule, info: Any) -> None:
    """Refuse what `prepare` returned where it is no whole `DataInfo`.

    Raises:
        UserError: naming the class and what is missing.
    """
    name = type(data).__name__
    if not isinstance(info, DataInfo):
        returned = "None" if info is None else f"a {type(info).__name__}"
        raise UserError(f"data: {name}.prepare returns {returned}; it must return a losslab.contracts.DataInfo")
    for split in data.splits[1:]:
        if split not in info.splits:
            raise UserError(f"data: {name}.prepare says nothing of its split {split}: add it to DataInfo.splits")
        if not info.splits[split].positions > 0:
            raise UserError(f"data: {name}.prepare says that its split {split} has no positions: nothing can be scored")
    if not info.mean_positions > 0:
        raise UserError(
            f"data: {name}.prepare says that a training sample has {info.mean_positions:g} positions on average; "
            "DataInfo.mean_positions must be above 0"
        )
