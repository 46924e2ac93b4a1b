"""A loss of hidden states and an output projection, as a function and as a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from losslab.config.nearest import nearest
from losslab.errors import UserError
from losslab.functional.choose import bind_loss, bound_loss, build_loss
from losslab.functional.flatten import checked_projection, flat_features
from losslab.functional.unreduced import unreduced
from losslab.losses.base import Loss

Reduction = Literal["mean", "sum", "none"]


def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    loss: str | Loss = "focal",
    bias: Tensor | None = None,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    extras: Mapping[str, Tensor] | None = None,
    reduction: Reduction = "mean",
    **options: Any,
) -> Tensor:
    """The loss of logits = hidden · weightᵀ + bias, which are made and differentiated a chunk at a time: those of all
    positions never exist. P stands for the shape of the positions: [B, T], [N], [] …

    It is what `losslab train` computes: products in the precision of `weight` or of torch.autocast, everything after
    them in float32. Gradients reach hidden, weight and bias, and parameters of the loss. A second backward pass needs a
    second call. torch.compile leaves it out of its graphs.

    Args:
        hidden: float P + [D].
        weight: float [V, D], of `nn.Linear(D, V)` or of a tied embedding.
        target: what the loss expects. Classes: whole numbers P. Distributions or labels: P + [V], or classes P, which
            then have all of the weight. Values: P + [K], or P where K is 1.
        loss: a name of the catalogue (`losslab losses`) with its options as further arguments
            (`loss="focal", gamma=3.0`); or an instance of a Loss class, ours or one's own, which is bound at its first
            use.
        bias: float [V].
        ignore_index: classes of this number are ignored. Float targets ignore by a `sample_weight` of 0.
        sample_weight: float P, finite and not below 0: the weight of each position in the sum and in what divides it.
        extras: further tensors P + […] that the loss reads, by name: `previous` (`previous_tokens`) of goldfish and
            unlikelihood, `next` (`following_targets`) of multi_token and token_order, `teacher_hidden` of distillation.
        reduction: "mean" divides the sum by the weight of the positions that count, as the loss counts them: class
            weights are part of it, and targets that the loss itself leaves out are not. "sum" does not divide. "none"
            is the loss of each position, 0 where it is ignored; its backward pass makes the products again.

    Returns:
        float32 []; P for "none". Where every position is ignored it is 0, with gradients of 0, not NaN.

    Raises:
        UserError: for a name, an option or a shape that does not fit, and for a loss that needs `LinearLoss`, since it
            has parameters or reads counts of classes.
    """
    eager: Callable[..., Tensor] = torch.compiler.disable(_linear_loss)  # type: ignore[no-untyped-call]
    return eager(hidden, weight, target, loss, options, bias, ignore_index, sample_weight, extras, reduction)


def _linear_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    loss: str | Loss,
    options: dict[str, Any],
    bias: Tensor | None,
    ignore_index: int,
    sample_weight: Tensor | None,
    extras: Mapping[str, Tensor] | None,
    reduction: Reduction,
) -> Tensor:
    _check_reduction(reduction)
    projection = checked_projection(hidden, weight, bias)
    bound = bound_loss(loss, options, weight)
    features = flat_features(
        bound,
        hidden,
        target,
        bound.num_classes(len(weight)),
        ignore_index=ignore_index,
        sample_weight=sample_weight,
        extras=extras,
    )
    if reduction == "none":
        return unreduced(bound, features, projection).reshape(hidden.shape[:-1])
    result = bound(features, projection)
    total: Tensor = result.total
    return total if reduction == "sum" else total / torch.where(result.weight == 0, 1.0, result.weight)


def _check_reduction(reduction: str) -> None:
    if reduction not in (known := get_args(Reduction)):
        raise UserError(f"reduction cannot be {reduction!r}: {nearest(str(reduction), known)}")


class LinearLoss(nn.Module):
    """`linear_loss` as a module: the one for losses with parameters or state, which it registers, moves and saves.

    The projection stays yours, and is an argument of each call.

    Args:
        num_outputs: V, the rows of the projection.
        hidden_size: D.
        loss: a name of the catalogue, or an instance of a Loss class.
        class_counts: float or int [V], how often each class is a target in training; for a loss of unequal classes,
            such as logit_adjustment.
        ignore_index: classes of this number are ignored.
        reduction: "mean", "sum" or "none", as of `linear_loss`.
        options: those of the loss, where `loss` is a name.
    Raises:
        UserError: for a name or an option that does not fit, and for a loss that needs counts and gets none.
    """

    def __init__(
        self,
        *,
        num_outputs: int,
        hidden_size: int,
        loss: str | Loss = "focal",
        class_counts: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        **options: Any,
    ) -> None:
        super().__init__()
        _check_reduction(reduction)
        self.loss = build_loss(loss, options)
        bind_loss(self.loss, num_outputs, hidden_size, class_counts=class_counts)
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        *,
        bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
        extras: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The loss of hidden P + [D] and weight [V, D] at targets P or P + [K]; see `linear_loss`."""
        return linear_loss(
            hidden,
            weight,
            target,
            loss=self.loss,
            bias=bias,
            ignore_index=self.ignore_index,
            sample_weight=sample_weight,
            extras=extras,
            reduction=self.reduction,
        )
