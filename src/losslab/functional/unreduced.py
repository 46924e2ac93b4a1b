"""The loss of each position, with gradients: the value in the forward pass, chunk by chunk, and the gradient of the sum
that the backward pass asks for in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from losslab.contracts.values import Features, added
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap, projection_rows
from losslab.losses.targets import check_targets


def unreduced(loss: Loss, features: Features, projection: LinearMap) -> Tensor:
    """weight · loss of each of N positions, float32 [N]; 0 where it is ignored.

    Raises:
        UserError: for a loss whose positions depend on each other, or that is defined by its sum alone.
    """
    if not loss.sums_scores() or loss.trains_otherwise or loss.reads_step:
        raise UserError(f"{type(loss).__name__} has no loss of a single position: take reduction='mean' or 'sum'")
    parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    values: Tensor = _Unreduced.apply(loss, features, features.hidden, *projection, *parameters)  # type: ignore[no-untyped-call]
    return values


class _Unreduced(torch.autograd.Function):
    """Values [N] whose gradient is computed when what multiplies them is known."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: Loss,
        features: Features,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        kept = features.kept()
        check_targets(kept.target, loss, loss.num_classes(len(weight)))
        device = hidden.device.type
        ctx.loss, ctx.features = loss, features
        ctx.autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.save_for_backward(hidden, weight, bias, *parameters)
        values = torch.zeros(len(features), dtype=torch.float32, device=hidden.device)
        selected = loss.select(kept)
        rows = projection_rows(loss.num_classes(len(weight)), hidden.device)
        pieces = [
            piece.weight.float() * added(loss.values(piece, LinearMap(weight, bias))).float()
            for piece in selected.chunks(rows)
        ]
        if pieces:
            values[features.weight != 0] = torch.cat(pieces)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        hidden, weight, bias, *parameters = ctx.saved_tensors
        enabled, dtype = ctx.autocast
        leaves = [hidden.detach().requires_grad_(), weight.detach().requires_grad_()]
        given = None if bias is None else bias.detach().requires_grad_()
        wanted = [*leaves, *([] if given is None else [given]), *parameters]
        features = Features(leaves[0], ctx.features.target, ctx.features.weight * upstream, ctx.features.extras)
        with torch.enable_grad(), torch.autocast(hidden.device.type, dtype=dtype, enabled=enabled):
            total = ctx.loss(features, LinearMap(leaves[1], given)).total
        found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
        of_hidden, of_weight = next(found), next(found)
        of_bias = None if given is None else next(found)
        return None, None, of_hidden, of_weight, of_bias, *found
