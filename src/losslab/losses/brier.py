"""Brier score."""

from __future__ import annotations

from torch import Tensor

from losslab.losses.base import Loss


class Brier(Loss):
    """Brier score: the squared distance between the prediction and the target as probabilities.

    Formula:
        ℓ = Σ_j (p_j − [j = y])² = 1 − 2 p_y + Σ_j p_j², p = softmax(z), in [0, 2].
    Gradient:
        ∂ℓ/∂z_j = 2 p_j (p_j − [j = y] + p_y − Σ_i p_i²).
    Source:
        Brier 1950, "Verification of forecasts expressed in terms of probability".
    Use:
        Where single absurd positions should not decide: a proper scoring rule that is bounded.
    Weakness:
        The gradient vanishes where a position is predicted wrongly and confidently; from random weights it is about 2 /
        V of cross-entropy's, so that it starts slowly with many classes. Some libraries halve the value.
    Prediction:
        softmax(z).
    Posterior:
        η = p.
    """

    shift_invariant = True
    is_proper = True

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        p = logits.softmax(dim=-1)
        return 1 - 2 * p.gather(-1, target[:, None])[:, 0] + p.square().sum(dim=-1)

    def posterior(self, logits: Tensor) -> Tensor:
        """η = p."""
        return logits.softmax(dim=-1)
