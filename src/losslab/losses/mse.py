"""Mean squared error."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import TargetKind
from losslab.losses.base import Loss


class MSE(Loss):
    """Mean squared error: every residual counts by its square.

    Formula:
        ℓ = (1 / K) Σ_k (z_k − y_k)², of a position's K values.
    Gradient:
        ∂ℓ/∂z_k = 2 (z_k − y_k) / K
    Source:
        Legendre 1805; Gauss 1809, who derived it from a normal error of constant variance.
    Use:
        The usual loss of numbers whose conditional mean is wanted; standardise y on the training set first.
    Weakness:
        One far outlier outweighs many ordinary positions, in the value and in the gradient.
    Prediction:
        The outputs z.
    Posterior:
        The minimiser is the conditional mean E[y | x].
    """

    target_kind = TargetKind.VALUES

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(logits, target.to(logits.dtype), reduction="none").mean(dim=-1)
