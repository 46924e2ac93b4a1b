"""A loss on trial: bound to a small problem, fresh for each check."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap
from losslab.types import Features, LossSum, OutputSpec

NUM_OUTPUTS, WIDTH, POSITIONS = 11, 6, 37


class Fault(Exception):
    """What is wrong with a loss, in one sentence with the likely cause."""


@dataclass(frozen=True)
class Problem:
    """Positions with ragged weights (0, ½, 1, 2), and a projection; float64."""

    hidden: Tensor
    target: Tensor
    weight: Tensor
    projection: Tensor

    @classmethod
    def random(cls, seed: int = 0, positions: int = POSITIONS, num_outputs: int = NUM_OUTPUTS) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        return cls(
            hidden=torch.randn(positions, WIDTH, dtype=torch.float64, generator=generator),
            target=torch.randint(num_outputs, (positions,), generator=generator),
            weight=torch.tensor([0.0, 0.5, 1.0, 1.0, 2.0, 0.0, 1.0])[torch.arange(positions) % 7].double(),
            projection=torch.randn(num_outputs, WIDTH, dtype=torch.float64, generator=generator),
        )

    def features(self, rows: Tensor | slice = slice(None)) -> Features:
        return Features(self.hidden[rows].float(), self.target[rows], self.weight[rows].float())


@dataclass(frozen=True)
class Outcome:
    """A loss's sums and its gradients in hidden states and projection."""

    total: Tensor
    weight: Tensor
    hidden: Tensor
    projection: Tensor


class Subject:
    """Makes equal copies of one loss.

    Args:
        loss: not bound yet.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def fresh(self, num_outputs: int = NUM_OUTPUTS, width: int = WIDTH) -> Loss:
        loss = copy.deepcopy(self.loss)
        generator = torch.Generator().manual_seed(7)
        loss.bind(OutputSpec(num_outputs=num_outputs, hidden_size=width, generator=generator))
        return loss

    def run(self, features: Features, projection: Tensor) -> Outcome:
        """Forward and backward, of a fresh copy."""
        hidden = features.hidden.detach().clone().requires_grad_()
        weight = projection.detach().to(torch.float32).clone().requires_grad_()
        loss = self.fresh(*weight.shape)
        result = loss(Features(hidden, features.target, features.weight, features.extras), LinearMap(weight, None))
        _refuse_other_than_sums(result)
        if not result.total.requires_grad:
            raise Fault("the total has no gradient: it is computed from detached values, or without the projection")
        of_hidden, of_weight = torch.autograd.grad(result.total, [hidden, weight], allow_unused=True)
        if of_hidden is None or of_weight is None:
            raise Fault("the total does not depend on hidden states and projection: something on the way is detached")
        return Outcome(result.total.detach(), result.weight.detach(), of_hidden, of_weight)


def _refuse_other_than_sums(result: object) -> None:
    if not isinstance(result, LossSum):
        raise Fault(f"forward returned a {type(result).__name__}, not LossSum(total, weight)")
    for name, value in (("total", result.total), ("weight", result.weight)):
        if value.shape != () or value.dtype != torch.float32:
            raise Fault(f"{name} must be a float32 scalar, not {value.dtype} of shape {list(value.shape)}")
