"""Gaussian negative log-likelihood and β-NLL."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from losslab.contracts import TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss

_LOWEST_FLOOR = 1e-12
_LARGEST_LOG_WEIGHT = math.log(1e12)


class GaussianNLL(Loss):
    """Gaussian negative log-likelihood: a mean and a variance for every value.

    Formula:
        ℓ = (1 / K) Σ_k w_k ½ [log σ_k² + (y_k − μ_k)² / σ_k²], of 2 K outputs: μ_k = z_k, σ_k² = v + exp z_{K + k},
        with the floor v; the weight w_k = sg(min(σ_k^{2β}, 10¹²)) has no gradient (β-NLL), and is 1 for β = 0.
    Gradient:
        ∂ℓ/∂μ_k = w_k (μ_k − y_k) / (K σ_k²), ∂ℓ/∂z_{K + k} = w_k (1 − (y_k − μ_k)² / σ_k²) (1 − v / σ_k²) / (2 K)
    Source:
        Nix & Weigend 1994; β: Seitzer et al. 2022, arXiv:2203.09168.
    Use:
        For numbers whose noise differs from position to position, and is wanted. β = 0.5 is what Seitzer et al. advise.
    Weakness:
        With β = 0 positions predicted badly get a large σ, and then hardly any gradient in μ: the mean stays bad. The
        value is no likelihood for β > 0, and not to be compared with other losses; the constant ½ log 2π is left out.
    Prediction:
        The means μ.
    Posterior:
        The minimiser is the conditional mean, and σ² the conditional variance (v, where that is smaller), for every β.

    Args:
        beta: β in [0, 1]: 0 is the likelihood; with 1 the gradient in μ is that of half the squared error.
        variance_floor: v, 1e-12 or above, in squared units of y: no σ² is below.
    Raises:
        UserError: for values outside these ranges.
    """

    target_kind = TargetKind.VALUES

    def __init__(self, *, beta: float = 0.0, variance_floor: float = 1e-6) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise UserError(f"loss.beta must be in [0, 1], not {beta}")
        if not _LOWEST_FLOOR <= variance_floor < math.inf:
            raise UserError(f"loss.variance_floor must be {_LOWEST_FLOOR:g} or above and finite, not {variance_floor}")
        self.beta = beta
        self.variance_floor = variance_floor
        self.has_detached = beta > 0

    def num_outputs(self, size: int) -> int:
        return 2 * size

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        # F.gaussian_nll_loss takes the variance itself, which overflows where its logarithm does not.
        mean, log_variance = self._moments(logits)
        values = (log_variance + (target.to(mean.dtype) - mean).square() * (-log_variance).exp()) / 2
        if self.beta > 0:
            values = values * (self.beta * log_variance.detach()).clamp(max=_LARGEST_LOG_WEIGHT).exp()
        return values.mean(dim=-1)

    def predict_values(self, logits: Tensor) -> Tensor:
        return logits.chunk(2, dim=-1)[0]

    def log_density(self, logits: Tensor, target: Tensor) -> Tensor:
        mean, log_variance = self._moments(logits)
        squares = (target.to(mean.dtype) - mean).square() * (-log_variance).exp()
        return -(log_variance + squares + math.log(2 * math.pi)) / 2

    def predict_quantiles(self, logits: Tensor, levels: Sequence[float]) -> Tensor:
        mean, log_variance = self._moments(logits)
        scores = torch.special.ndtri(torch.tensor(levels, dtype=logits.dtype, device=logits.device))
        quantiles: Tensor = mean[..., None] + (log_variance / 2).exp()[..., None] * scores
        return quantiles

    def _moments(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logarithms of the variances, each [N, K]."""
        mean, log_variance = logits.chunk(2, dim=-1)
        return mean, torch.logaddexp(log_variance, log_variance.new_full((), math.log(self.variance_floor)))
