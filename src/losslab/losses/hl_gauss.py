"""HL-Gauss: regression as classification."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss

_SHARPEST = 0.01


class HLGauss(Loss):
    """HL-Gauss: cross-entropy to a histogram of a Gaussian around the value.

    Formula:
        ℓ = −(1 / K) Σ_k Σ_b q_kb log p_kb, p_k = softmax(z_k) over B bins, of K B outputs: the bins of the first value,
        then those of the second, … The bins divide [low, high] into equal widths w; q_kb is the mass of
        N(y_k, (σ w)²) in bin b, renormalised to the range. A y outside the range is first moved to its nearer end.
    Gradient:
        ∂ℓ/∂z_kb = (p_kb − q_kb) / K
    Source:
        Imani & White 2018, arXiv:1806.04613; Farebrother et al. 2024, arXiv:2403.03950.
    Use:
        For numbers where squared error trains badly: noisy, heavy-tailed or multimodal targets, and values in
        reinforcement learning.
    Weakness:
        The range must be known beforehand (from the training set alone): nothing outside it is ever predicted, and
        within about 2 σ w of its ends the histogram's mean is drawn inwards.
    Prediction:
        Σ_b p_b c_b, c_b the centres of the bins.
    Posterior:
        The minimiser p is the expected histogram: the distribution of y given x, smoothed by the Gaussian; its mean is
        E[y | x] where no mass is cut off.

    Args:
        num_bins: B, 2 or more for each value.
        low: the lower end of the range.
        high: its upper end, above `low`.
        sigma: σ, the Gaussian's standard deviation in bin widths, from 0.01 (one bin, almost) to `num_bins`.
    Raises:
        UserError: for values outside these ranges.
    """

    target_kind = TargetKind.VALUES
    shift_invariant = True

    def __init__(self, *, num_bins: int = 100, low: float = -4.0, high: float = 4.0, sigma: float = 0.75) -> None:
        super().__init__()
        if num_bins < 2:
            raise UserError(f"loss.num_bins must be 2 or more, not {num_bins}")
        if not -math.inf < low < high < math.inf:
            raise UserError(f"loss.low must be below loss.high and both finite, not {low} and {high}")
        if not _SHARPEST <= sigma <= num_bins:
            raise UserError(f"loss.sigma must be in [{_SHARPEST}, {num_bins}], the number of bins, not {sigma}")
        self.num_bins = num_bins
        self.low, self.high = low, high
        self.sigma = sigma

    def num_outputs(self, size: int) -> int:
        return size * self.num_bins

    def histogram(self, target: Tensor) -> Tensor:
        """The shares q [N, K, B] of the bins for targets [N, K]; each row sums to 1."""
        at = ((target - self.low) / self._width).clamp(0, self.num_bins)[..., None]
        edges = torch.arange(self.num_bins + 1, dtype=target.dtype, device=target.device)
        below = torch.erf((edges - at) / (self.sigma * math.sqrt(2)))
        return below.diff(dim=-1) / (below[..., -1:] - below[..., :1])

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        shares = self.histogram(target.to(logits.dtype))
        values = F.cross_entropy(logits.reshape(-1, self.num_bins), shares.flatten(0, 1), reduction="none")
        return values.view(target.shape).mean(dim=-1)

    def predict_values(self, logits: Tensor) -> Tensor:
        p = logits.reshape(len(logits), logits.shape[-1] // self.num_bins, self.num_bins).softmax(dim=-1)
        bins = torch.arange(self.num_bins, dtype=logits.dtype, device=logits.device)
        return (p * (self.low + self._width * (bins + 0.5))).sum(dim=-1)

    @property
    def _width(self) -> float:
        return (self.high - self.low) / self.num_bins
