"""Log-cosh loss."""

from __future__ import annotations

import torch
from torch import Tensor

from losslab.contracts import TargetKind
from losslab.losses.base import Loss


class LogCosh(Loss):
    """Log-cosh loss: a Huber loss of unit width without a seam.

    Formula:
        ℓ = (1 / K) Σ_k log cosh(z_k − y_k): e² / 2 for small residuals e, |e| − log 2 for large ones.
    Gradient:
        ∂ℓ/∂z_k = tanh(z_k − y_k) / K
    Source:
        Green 1990, "Bayesian reconstructions from emission tomography data using a modified EM algorithm".
    Use:
        Where Huber's robustness is wanted and second derivatives matter, as for quasi-Newton steps. Standardise y.
    Weakness:
        Its width is 1 in the units of y, so that the scale of y decides how robust it is.
    Prediction:
        The outputs z.
    Posterior:
        The minimiser m solves E[tanh(m − y) | x] = 0; it is median and mean where y is symmetric.
    """

    target_kind = TargetKind.VALUES

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        size = (logits - target.to(logits.dtype)).abs()
        # log cosh e = |e| + log((1 + e^(−2|e|)) / 2): nothing grows, and near 0 little cancels.
        return (size + torch.log1p(torch.expm1(-2 * size) / 2)).mean(dim=-1)
