"""Brier score."""

from __future__ import annotations

from torch import Tensor

from losslab.losses.base import Loss


class Brier(Loss):
    """ℓ = Σ_j (p_j − [j = y])² = 1 − 2 p_y + Σ_j p_j², p = softmax(z), in [0, 2].

    Brier 1950. A proper scoring rule; its gradient vanishes where a position is predicted wrongly and confidently.
    """

    shift_invariant = True
    is_proper = True

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        p = logits.softmax(dim=-1)
        return 1 - 2 * p.gather(-1, target[:, None])[:, 0] + p.square().sum(dim=-1)

    def posterior(self, logits: Tensor) -> Tensor:
        """η = p."""
        return logits.softmax(dim=-1)
