"""Symmetric cross-entropy."""

from __future__ import annotations

import math

from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class SymmetricCrossEntropy(Loss):
    """ℓ = −α log p_y − β A (1 − p_y), p = softmax(z): cross-entropy plus its reverse, with log 0 taken as A.

    Wang et al. 2019, arXiv:1908.06112. On hard targets, as here, it is α times Poly-1 with ε = −Aβ / α, and no other
    loss.

    Args:
        alpha: α, above 0.
        beta: β, 0 or above.
        log_zero: A, below 0.

    Raises:
        UserError: for values outside these ranges.
    """

    cost_class = "F1"
    shift_invariant = True

    def __init__(self, *, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0) -> None:
        super().__init__()
        if not 0 < alpha < math.inf:
            raise UserError(f"loss.alpha must be above 0 and finite, not {alpha}")
        if not 0 <= beta < math.inf:
            raise UserError(f"loss.beta must be 0 or above and finite, not {beta}")
        if not -math.inf < log_zero < 0:
            raise UserError(f"loss.log_zero must be below 0 and finite, not {log_zero}")
        self.alpha = alpha
        self.beta = beta
        self.log_zero = log_zero

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -self.alpha * log_prob + self.beta * self.log_zero * log_prob.expm1()

    def posterior(self, logits: Tensor) -> Tensor:
        """η ∝ p / (α − β A p)."""
        p = logits.softmax(dim=-1)
        return p / (self.alpha - self.beta * self.log_zero * p)
