"""A loss by its name in the catalogue or as an instance, bound to the size of a projection."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import torch
import yaml
from torch import Tensor

from losslab.choices import conf_dir
from losslab.config.binding import bind_component
from losslab.config.components import build
from losslab.config.nearest import nearest
from losslab.contracts.values import OutputSpec
from losslab.errors import UserError
from losslab.losses.base import Loss

_SIZES = "_bound_sizes"
"""The attribute that keeps V and D of a loss that was bound here. Copies of the loss keep it, too."""


class _NoCounts(Exception):
    """A loss asked for the counts of classes."""


class _Countless(OutputSpec):
    """Sizes without counts of classes."""

    def __getattribute__(self, name: str) -> Any:
        if name == "class_counts":
            raise _NoCounts
        return super().__getattribute__(name)


def build_loss(loss: object, options: dict[str, Any]) -> Loss:
    """A loss by its name in the catalogue, with options that are checked as those of a run are; an instance is returned
    as it is.

    Raises:
        UserError: for an unknown name or option, naming the nearest, and for options beside an instance.
    """
    if isinstance(loss, Loss):
        if options:
            raise UserError(
                f"{next(iter(options))} goes with a loss's name: give it to {type(loss).__name__}(…) instead"
            )
        return loss
    if not isinstance(loss, str):
        what = f"the class {loss.__name__}" if isinstance(loss, type) else repr(loss)
        raise UserError(f"loss must be a name of the catalogue or an instance of a Loss class, not {what}")
    names = {path.stem: path for path in (conf_dir() / "loss").glob("*.yaml")}
    if loss not in names:
        raise UserError(f"there is no loss named {loss!r}: {nearest(loss, names)}")
    node = yaml.safe_load(names[loss].read_text(encoding="utf-8"))
    if "defaults" in node:
        kind = node["_target_"].rpartition(".")[2]
        inside = ", ".join(
            f"{group.partition('@')[2]}=…" for entry in node["defaults"] if entry != "_self_" for group in entry
        )
        raise UserError(f"loss={loss!r} is made of losses: give an instance, {kind}({inside})")
    built: Loss = build(bind_component("loss", {**node, **options}), "loss")
    if built.teacher is not None:
        raise UserError("loss.teacher is read by losslab train alone: give an instance, and call its teach(log_probs)")
    return built


def bind_loss(loss: Loss, num_outputs: int, hidden_size: int, *, class_counts: Tensor | None = None) -> None:
    """Give a loss its sizes, unless it has them.

    Args:
        num_outputs: V, the rows of the projection.
        hidden_size: D.
        class_counts: [V]: how often each class is a target, and how many there are.
    Raises:
        UserError: for a loss that has other sizes, and for one that needs counts and gets none.
    """
    sizes = (num_outputs, hidden_size)
    if (own := loss.__dict__.get(_SIZES)) is not None:
        if own != sizes:
            raise UserError(
                f"{type(loss).__name__} serves a projection of {own[0]:,} outputs of width {own[1]:,}, and this one "
                f"has {num_outputs:,} of width {hidden_size:,}: make another instance"
            )
        return
    size = num_outputs if class_counts is None else class_counts.numel()
    if class_counts is not None and (class_counts.ndim != 1 or loss.num_outputs(size) != num_outputs):
        raise UserError(f"class_counts must be [{num_outputs:,}], not {list(class_counts.shape)}")
    # Seeded like any layer that is made now, and without a draw that would shift the layers made next.
    generator = torch.Generator().manual_seed(torch.initial_seed())
    kind = OutputSpec if class_counts is not None else _Countless
    counts = None if class_counts is None else class_counts.detach().double().cpu()
    spec = kind(num_outputs, hidden_size, generator, class_counts=counts, size=size)
    try:
        with torch.inference_mode(False), torch.device("cpu"):
            loss.bind(spec)
    except _NoCounts:
        raise UserError(
            f"{type(loss).__name__} needs to know how often each class is a target: "
            "LinearLoss(class_counts=…) takes their counts"
        ) from None
    setattr(loss, _SIZES, sizes)


def bound_loss(loss: str | Loss, options: dict[str, Any], weight: Tensor) -> Loss:
    """A loss for a projection with this weight [V, D], on its device. Those made by name are kept for the next call.

    Raises:
        UserError: as `build_loss` and `bind_loss`, and for parameters that no optimizer would find.
    """
    num_outputs, hidden_size = weight.shape
    if isinstance(loss, str):
        try:
            key = json.dumps(options)
        except TypeError:  # options that are objects
            return _bound(build_loss(loss, options), num_outputs, hidden_size, weight.device)
        return _named(loss, key, num_outputs, hidden_size, weight.device)
    return _bound(build_loss(loss, options), num_outputs, hidden_size, weight.device)


@lru_cache(maxsize=64)
def _named(name: str, options: str, num_outputs: int, hidden_size: int, device: torch.device) -> Loss:
    return _bound(build_loss(name, json.loads(options)), num_outputs, hidden_size, device)


def _bound(loss: Loss, num_outputs: int, hidden_size: int, device: torch.device) -> Loss:
    known = {name for name, _ in loss.named_parameters()}
    bind_loss(loss, num_outputs, hidden_size)
    if new := sorted({name for name, _ in loss.named_parameters()} - known):
        raise UserError(
            f"{type(loss).__name__} has parameters of its own ({new[0]}), which an optimizer must be given: use "
            "LinearLoss, and its parameters()"
        )
    return move(loss, device)


def move(loss: Loss, device: torch.device) -> Loss:
    """The loss, with its buffers and parameters on a device."""
    tensors = [*loss.parameters(), *loss.buffers()]
    return loss if all(tensor.device == device for tensor in tensors) else loss.to(device)
