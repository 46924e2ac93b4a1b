"""Mean absolute error."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import TargetKind
from losslab.losses.base import Loss


class MAE(Loss):
    """Mean absolute error: every residual pulls equally hard, however far out it is.

    Formula:
        ℓ = (1 / K) Σ_k |z_k − y_k|, of a position's K values.
    Gradient:
        ∂ℓ/∂z_k = sign(z_k − y_k) / K, 0 where they are equal
    Source:
        Boscovich 1757; Laplace 1774, as the likelihood of a double exponential error.
    Use:
        For numbers with outliers or heavy tails, where the conditional median is as good an answer as the mean.
    Weakness:
        The gradient does not shrink near the minimum, so that the last steps jump about unless the learning rate falls.
    Prediction:
        The outputs z.
    Posterior:
        The minimiser is the conditional median of y given x.
    """

    target_kind = TargetKind.VALUES

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(logits, target.to(logits.dtype), reduction="none").mean(dim=-1)
