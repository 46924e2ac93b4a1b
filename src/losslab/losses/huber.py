"""Huber loss."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss


class Huber(Loss):
    """Huber loss: squared near 0, absolute far out.

    Formula:
        ℓ = (1 / K) Σ_k h(z_k − y_k), h(e) = e² / 2 where |e| ≤ δ, else δ (|e| − δ / 2); δ times torch's smooth_l1_loss
        with β = δ.
    Gradient:
        ∂ℓ/∂z_k = min(max(z_k − y_k, −δ), δ) / K
    Source:
        Huber 1964, "Robust estimation of a location parameter".
    Use:
        For numbers with some outliers: δ is the residual from which on a position counts as one. Standardise y first.
    Weakness:
        δ is in the units of y and must be chosen; where the error is skewed the minimiser is neither mean nor median.
    Prediction:
        The outputs z.
    Posterior:
        The minimiser tends to the conditional median for δ → 0 and to the mean for δ → ∞, and is both where y is
        symmetric.

    Args:
        delta: δ, above 0; where the squared part ends.
    Raises:
        UserError: for a δ outside this range.
    """

    target_kind = TargetKind.VALUES

    def __init__(self, *, delta: float = 1.0) -> None:
        super().__init__()
        if not 0 < delta < math.inf:
            raise UserError(f"loss.delta must be above 0 and finite, not {delta}")
        self.delta = delta

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(logits, target.to(logits.dtype), reduction="none", delta=self.delta).mean(dim=-1)
