"""Poly-1 loss."""

from __future__ import annotations

import math

from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class Poly1(Loss):
    """ℓ = −log p_y + ε (1 − p_y), p = softmax(z): the first coefficient of cross-entropy's series in 1 − p_y is 1 + ε.

    Leng et al. 2022, arXiv:2204.12511. Symmetric cross-entropy on hard targets is α times this with ε = −Aβ / α.

    Args:
        epsilon: ε, −1 or above; below, the gradient of a badly predicted position has the wrong sign.

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

    def posterior(self, logits: Tensor) -> Tensor | None:
        """η ∝ p / (1 + ε p); none for ε = −1, whose loss has no slope at p = 1."""
        p = logits.softmax(dim=-1)
        return p / (1 + self.epsilon * p) if self.epsilon > -1 else None
