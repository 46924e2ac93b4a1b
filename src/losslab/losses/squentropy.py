"""Squentropy."""

from __future__ import annotations

from torch import Tensor

from losslab.losses.base import Loss


class Squentropy(Loss):
    """Squentropy: cross-entropy plus the square loss of the wrong classes' logits.

    Formula:
        ℓ = −log p_y + 1 / (V − 1) Σ_{j≠y} z_j², p = softmax(z).
    Gradient:
        ∂ℓ/∂z_j = p_j − [j = y] + [j ≠ y] 2 z_j / (V − 1).
    Source:
        Hui, Belkin & Wright 2023, arXiv:2302.03952.
    Use:
        Against overconfidence and drifting logits, with nothing to tune; meant to go with cross-entropy's learning
        rate.
    Weakness:
        It sees a shift of the logits. The mean over V − 1 classes makes the square part weak where V is large; no
        proper scoring rule, and no link to say which posterior it means.
    Prediction:
        softmax(z).
    Posterior:
        None in closed form.
    """

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        z_y = logits.gather(-1, target[:, None])[:, 0]
        others = logits.square().sum(dim=-1) - z_y.square()
        return logits.logsumexp(dim=-1) - z_y + others / max(1, logits.shape[-1] - 1)
