"""The value of the loss itself: Σ weight · loss and Σ weight, and the same of penalties that are divided apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, Projection
from losslab.metrics.scorer import Scorer

SUMS = 4


def sums_of(part: LossSum) -> Tensor:
    """float64 [4]: total and weight of a loss, and total and weight of its penalties."""
    total, weight, penalty = part.total.double(), part.weight.double(), part.penalty
    if penalty is None:
        return torch.stack([total, weight, torch.zeros_like(total), torch.zeros_like(total)])
    own = total - penalty.share.double() * penalty.total.double()
    return torch.stack([own, weight, penalty.total.double(), penalty.weight.double()])


def sums_in_chunks(loss: Scorer, features: Features, projection: Projection, rows: int) -> Tensor:
    """The sums of a loss that needs more than scores: of `rows` positions at once, where none depends on others."""
    sums = torch.zeros(SUMS, dtype=torch.float64, device=features.hidden.device)
    for chunk in features.chunks(rows if loss.position_wise else max(1, len(features))):
        sums = sums + sums_of(loss(chunk, projection))
    return sums


def value_of(total: float, weight: float, penalty: float, penalty_weight: float) -> float:
    """The objective from its summed `sums_of`; NaN where nothing counted."""
    return (total / weight if weight else math.nan) + (penalty / penalty_weight if penalty_weight else 0.0)
