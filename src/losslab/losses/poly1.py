"""Poly-1 loss."""

from __future__ import annotations

import math

from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class Poly1(Loss):
    """Poly-1 loss: cross-entropy with another first coefficient in its series in 1 − p_y.

    Formula:
        ℓ = −log p_y + ε (1 − p_y), p = softmax(z): the first coefficient is 1 + ε.
    Gradient:
        ∂ℓ/∂z_j = (1 + ε p_y) (p_j − [j = y]).
    Source:
        Leng et al. 2022, arXiv:2204.12511.
    Use:
        As a small change to cross-entropy with one number to tune: ε above 0 weighs positions that are predicted well
        more, ε below 0 weighs them less.
    Weakness:
        ε must be tuned, with a budget that the other losses should have too; no proper scoring rule unless it is 0.
        Symmetric cross-entropy on hard targets is α times this with ε = −A β / α: comparing the two compares nothing.
    Prediction:
        softmax(z).
    Posterior:
        η_j ∝ p_j / (1 + ε p_j); none for ε = −1, whose slope in p_y is 0 at p_y = 1.

    Args:
        epsilon: ε, −1 or above; below, the gradient of a well predicted position has the wrong sign.
    Raises:
        UserError: for an ε outside this range.
    """

    cost_class = "F1"
    shift_invariant = True

    def __init__(self, *, epsilon: float = 1.0) -> None:
        super().__init__()
        if not -1 <= epsilon < math.inf:
            raise UserError(f"loss.epsilon must be -1 or above and finite, not {epsilon}")
        self.epsilon = epsilon

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob - self.epsilon * log_prob.expm1()

    def posterior_of_softmax(self, p: Tensor, log_p: Tensor) -> Tensor | None:
        """η ∝ p / (1 + ε p); none for ε = −1, whose loss has no slope at p = 1."""
        if self.epsilon <= -1:
            return None
        odds = p / (1 + self.epsilon * p)
        return odds.div_(odds.sum(dim=-1, keepdim=True))
