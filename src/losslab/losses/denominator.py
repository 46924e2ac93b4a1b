"""The denominator of a loss against the number of positions, by which penalties beside it are means over positions."""

from __future__ import annotations

import torch
from torch import Tensor

from losslab.contracts import Features
from losslab.losses.contract import DividedLoss


def weighs_positions(loss: DividedLoss) -> bool:
    """Whether a loss divides by weights of its own, such as those of classes."""
    nothing = Features(
        hidden=torch.zeros(0, 1),
        target=torch.zeros(0, dtype=torch.int64),
        weight=torch.zeros(0),
        extras={name: torch.zeros(0, size, dtype=torch.int32) for name, size in loss.needs.items()},
    )
    return loss.position_weight(nothing) is not None


def share_of(loss: DividedLoss, features: Features) -> tuple[Tensor, Tensor]:
    """The loss's own denominator over Σ weight of the positions that it selects, and that sum; 1 where it is 0."""
    own = loss.select(features.kept()).kept()
    weight, share = own.weight.float(), loss.position_weight(own)
    positions = weight.sum()
    if share is None or not positions:
        return torch.ones_like(positions), positions
    return (weight * share).sum() / positions, positions


def share_of_step(loss: DividedLoss, target: Tensor, weight: Tensor) -> Tensor:
    """The share of a whole optimizer step's positions, by their target and weight [N]."""
    return share_of(loss, Features(weight[:, None], target, weight))[0]
