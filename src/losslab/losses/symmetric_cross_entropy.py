"""Symmetric cross-entropy."""

from __future__ import annotations

import math

from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class SymmetricCrossEntropy(Loss):
    """Symmetric cross-entropy: cross-entropy plus its reverse, with log 0 taken as A, against wrong labels.

    Formula:
        ℓ = −α log p_y − β A (1 − p_y), p = softmax(z).
    Gradient:
        ∂ℓ/∂z_j = (α − β A p_y) (p_j − [j = y]).
    Source:
        Wang et al. 2019, arXiv:1908.06112.
    Use:
        For labels of which a good part is wrong: the reverse part cannot exceed −β A, however wrong the position is.
    Weakness:
        On hard targets, as here, it is α times Poly-1 with ε = −A β / α, and no other loss. α and β suit the noise of
        one data set each. No proper scoring rule unless β is 0.
    Prediction:
        softmax(z).
    Posterior:
        η_j ∝ p_j / (α − β A p_j).

    Args:
        alpha: α, above 0; the weight of cross-entropy.
        beta: β, 0 or above; the weight of its reverse.
        log_zero: A, below 0; what stands for log 0.
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

    def posterior_of_softmax(self, p: Tensor, log_p: Tensor) -> Tensor:
        """η ∝ p / (α − β A p)."""
        odds = p / (self.alpha - self.beta * self.log_zero * p)
        return odds.div_(odds.sum(dim=-1, keepdim=True))
