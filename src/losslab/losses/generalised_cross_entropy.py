"""Generalised cross-entropy."""

from __future__ import annotations

import math

from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class GeneralisedCrossEntropy(Loss):
    """Generalised cross-entropy: between cross-entropy and 1 − p_y, so that wrong labels pull less.

    Formula:
        ℓ = (1 − p_y^q) / q, p = softmax(z); cross-entropy for q → 0, 1 − p_y for q = 1. With truncation, p_y at or
        below k counts as k.
    Gradient:
        ∂ℓ/∂z_j = p_y^q (p_j − [j = y]), and 0 where p_y ≤ k.
    Source:
        Zhang & Sabuncu 2018, arXiv:1805.07836.
    Use:
        For labels of which a good part is wrong; q = 0.7 for a few classes.
    Weakness:
        From random weights p_y is near 1 / V, and so the gradient near V^(−q) times cross-entropy's: with thousands of
        classes it hardly starts unless q is small. No proper scoring rule.
    Prediction:
        softmax(z).
    Posterior:
        η_j ∝ p_j^(1 − q); none for q = 1, whose best prediction is one class for certain, and none when truncated.

    Args:
        q: in (0, 1].
        truncation: k in [0, 1): a position with p_y at or below k has the loss of p_y = k, and no gradient.
    Raises:
        UserError: for values outside these ranges.
    """

    cost_class = "F1"
    shift_invariant = True

    def __init__(self, *, q: float = 0.7, truncation: float = 0.0) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise UserError(f"loss.q must be in (0, 1], not {q}")
        if not 0 <= truncation < 1:
            raise UserError(f"loss.truncation must be in [0, 1), not {truncation}")
        self.q = q
        self.truncation = truncation

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        if self.truncation:
            floor = math.log(self.truncation)
            log_prob = log_prob.masked_fill(log_prob <= floor, floor)
        return -(self.q * log_prob).expm1() / self.q

    def posterior(self, logits: Tensor) -> Tensor | None:
        """η ∝ p^(1 − q); none for q = 1, whose best prediction is one class for certain, and none when truncated."""
        if self.q == 1 or self.truncation:
            return None
        return ((1 - self.q) * logits).softmax(dim=-1)
