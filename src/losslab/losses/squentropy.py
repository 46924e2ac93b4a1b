"""Squentropy."""

from __future__ import annotations

from torch import Tensor

from losslab.losses.base import Loss


class Squentropy(Loss):
    """ℓ = −log p_y + 1/(V − 1) Σ_{j≠y} z_j², p = softmax(z).

    Hui, Belkin & Wright 2023, arXiv:2302.03952: the sum of cross-entropy and the square loss of the wrong classes, with
    cross-entropy's learning rate. It sees a shift of the logits.
    """

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        z_y = logits.gather(-1, target[:, None])[:, 0]
        others = logits.square().sum(dim=-1) - z_y.square()
        return logits.logsumexp(dim=-1) - z_y + others / max(1, logits.shape[-1] - 1)
