"""Targets and hidden states of any shape as the N positions of `Features`, checked in sentences."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from losslab.contracts.values import Features, TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap
from losslab.losses.targets import check_classes, in_kind

_HINTS = {
    "previous": "extras={'previous': losslab.functional.previous_tokens(tokens, %d)}, tokens being the inputs [B, T]",
    "next": "extras={'next': losslab.functional.following_targets(targets, targets != -100, %d)}, targets being [B, T]",
    "teacher_hidden": "extras={'teacher_hidden': …}, the teacher's hidden states",
}
"""Arguments that give the extras, by their names."""


def checked_projection(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> LinearMap:
    """The projection.

    Raises:
        UserError: for shapes that do not fit, and for a weight that is not whole in this process.
    """
    if hasattr(weight, "full_tensor"):  # a DTensor
        raise UserError(
            "the weight of the projection is sharded here: call the loss inside the forward of the module that gathers "
            "it (FSDP's root), as losslab.integrations.transformers.patch does"
        )
    if weight.ndim != 2 or not weight.is_floating_point():
        raise UserError(
            f"weight must be float [V, D], not {weight.dtype} of shape {list(weight.shape)}; under FSDP it is whole "
            "only inside the forward of the module that holds it"
        )
    if hidden.ndim < 1 or hidden.shape[-1] != weight.shape[1] or not hidden.is_floating_point():
        raise UserError(
            f"hidden must be float […, {weight.shape[1]}], as wide as weight {list(weight.shape)}, not {hidden.dtype} "
            f"of shape {list(hidden.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise UserError(f"bias must be [{weight.shape[0]}], an entry for each row of weight, not {list(bias.shape)}")
    return LinearMap(weight, bias)


def flat_features(
    loss: Loss,
    hidden: Tensor,
    target: Tensor,
    num_outputs: int,
    *,
    ignore_index: int,
    sample_weight: Tensor | None,
    extras: Mapping[str, Tensor] | None,
) -> Features:
    """The N positions of hidden states [..., D] as a loss reads them; ignored ones have weight 0.

    Raises:
        UserError: for shapes that do not fit, and for extras that the loss needs and does not get.
    """
    if loss.target_kind is TargetKind.SEQUENCES:
        raise UserError(
            f"{type(loss).__name__} reads whole sequences, and linear_loss one target for each hidden state: call the "
            "loss with losslab.contracts.Features(hidden, target, weight, lengths=…) instead"
        )
    positions = hidden.shape[:-1]
    hidden = hidden.reshape(-1, hidden.shape[-1])
    given = _flat_extras(loss, extras or {}, positions)
    weight = torch.ones(len(hidden), device=hidden.device)
    if sample_weight is not None:
        weight = _flat_weight(sample_weight, positions).to(hidden.device)
    target, classes = _flat_target(loss, target.to(hidden.device), positions)
    if classes:
        weight = torch.where(target == ignore_index, 0.0, weight)
        target = target.masked_fill(weight == 0, 0)
        check_classes(target, num_outputs)
    return in_kind(Features(hidden, target, weight, given), loss.target_kind, num_outputs)


def _flat_target(loss: Loss, target: Tensor, positions: torch.Size) -> tuple[Tensor, bool]:
    """Targets [N] or [N, K], and whether they are classes."""
    kind = loss.target_kind
    whole = not (target.is_floating_point() or target.dtype == torch.bool)
    if whole and target.shape == positions and kind is not TargetKind.VALUES:
        return target.reshape(-1).long(), True
    if kind is TargetKind.CLASSES:
        raise UserError(
            f"{type(loss).__name__} needs classes, int64 {list(positions)}, not {target.dtype} of shape "
            f"{list(target.shape)}; loss='soft_cross_entropy' takes distributions, and loss='mse' values"
        )
    if kind is TargetKind.VALUES and target.shape == positions:
        target = target[..., None]
    if target.shape[:-1] != positions:
        last = "K] values" if kind is TargetKind.VALUES else "V] numbers"
        raise UserError(f"target must be {[*positions]} + [{last}, not of shape {list(target.shape)}")
    return target.reshape(-1, target.shape[-1]).float(), False


def _flat_weight(sample_weight: Tensor, positions: torch.Size) -> Tensor:
    if sample_weight.shape != positions:
        raise UserError(
            f"sample_weight must have the shape of the positions, {list(positions)}, not {list(sample_weight.shape)}"
        )
    weight = sample_weight.detach().reshape(-1).float()
    if weight.device.type == "cpu" and len(weight) and not bool(((weight >= 0) & (weight < torch.inf)).all()):
        raise UserError(
            "sample_weight must be finite and not below 0; reduction='none' returns what other factors can multiply"
        )
    return weight


def _flat_extras(loss: Loss, extras: Mapping[str, Tensor], positions: torch.Size) -> dict[str, Tensor]:
    needed = dict(loss.needs)
    if loss.reads_teacher:
        if loss.teacher_log_probs is None:
            raise UserError(
                f"{type(loss).__name__} learns from a teacher: give an instance, and call its teach(log_probs) with "
                "what turns the teacher's hidden states into log-probabilities"
            )
        needed["teacher_hidden"] = 0
    for name, size in needed.items():
        if name not in extras:
            hint = _HINTS.get(name, f"extras={{{name!r}: …}}")
            raise UserError(
                f"{type(loss).__name__} reads {name!r} of each position: give {hint % size if '%' in hint else hint}"
            )
    for name, value in extras.items():
        if value.shape[: len(positions)] != positions:
            raise UserError(
                f"extras[{name!r}] must begin with the positions, {list(positions)}, not {list(value.shape)}"
            )
    return {name: value.reshape(-1, *value.shape[len(positions) :]) for name, value in extras.items()}
