"""HL-Gauss: regression as classification."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import OutputSpec, TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss

_SHARPEST = 0.01
_MARGIN = 2
"""Standard deviations σ w between train's values and an open end of the range."""


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
        low: the lower end of the range, in the unit of the targets that the loss sees (standard deviations from the
            mean, where the task standardises).
        high: its upper end, above `low`. Both null: 2 σ w beyond train's smallest and largest value.
        sigma: σ, the Gaussian's standard deviation in bin widths, from 0.01 (one bin, almost) to `num_bins`.
    Raises:
        UserError: for values outside these ranges, and for a range that train's values exceed by more than its width.
    """

    target_kind = TargetKind.VALUES
    shift_invariant = True

    def __init__(
        self, *, num_bins: int = 100, low: float | None = -4.0, high: float | None = 4.0, sigma: float = 0.75
    ) -> None:
        super().__init__()
        if num_bins < 2:
            raise UserError(f"loss.num_bins must be 2 or more, not {num_bins}")
        if (low is None) != (high is None):
            raise UserError("loss.low and loss.high are null together, or both are numbers")
        if low is not None and high is not None and not -math.inf < low < high < math.inf:
            raise UserError(f"loss.low must be below loss.high and both finite, not {low} and {high}")
        if not _SHARPEST <= sigma <= num_bins:
            raise UserError(f"loss.sigma must be in [{_SHARPEST}, {num_bins}], the number of bins, not {sigma}")
        self.of_train = low is None
        if self.of_train and num_bins <= 2 * _MARGIN * sigma:
            raise UserError(f"loss.low=null needs more than {2 * _MARGIN * sigma:g} bins, 4 loss.sigma")
        self.num_bins = num_bins
        self.low, self.high = (math.nan if end is None else end for end in (low, high))
        self.sigma = sigma

    def bind(self, spec: OutputSpec) -> None:
        """Take the range of train's values, where none is given, or compare them with the one that is."""
        if spec.value_range is None:
            if self.of_train:
                raise UserError("loss.low=null needs the range of train's values, which this data does not give")
            return
        least, largest = spec.value_range
        if self.of_train:
            if least == largest:
                raise UserError(f"every value of train is {least:g}: loss.low and loss.high cannot be null")
            share = _MARGIN * self.sigma / self.num_bins
            margin = share * (largest - least) / (1 - 2 * share)
            self.low, self.high = least - margin, largest + margin
        width = self.high - self.low
        if not (self.low - width <= least and largest <= self.high + width):
            raise UserError(
                f"train's values reach from {least:.4g} to {largest:.4g} as the loss sees them, far outside of "
                f"loss.low={self.low:g} and loss.high={self.high:g}: write loss.low=null loss.high=null for their range"
            )

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
        p = self._by_bin(logits).softmax(dim=-1)
        bins = torch.arange(self.num_bins, dtype=logits.dtype, device=logits.device)
        return (p * (self.low + self._width * (bins + 0.5))).sum(dim=-1)

    def log_density(self, logits: Tensor, target: Tensor) -> Tensor:
        """That of a histogram; −∞ outside of the range."""
        at = (target.to(logits.dtype) - self.low) / self._width
        inside = (at >= 0) & (at <= self.num_bins)
        bins = at.floor().clamp(0, self.num_bins - 1).long()[..., None]
        found = self._by_bin(logits).log_softmax(dim=-1).gather(-1, bins)[..., 0] - math.log(self._width)
        return found.masked_fill(~inside, -math.inf)

    def predict_quantiles(self, logits: Tensor, levels: Sequence[float]) -> Tensor:
        """Ends of the histogram's mass, linear within a bin."""
        p = self._by_bin(logits).softmax(dim=-1)
        above = p.cumsum(dim=-1)
        wanted = torch.tensor(levels, dtype=p.dtype, device=p.device).expand(*p.shape[:-1], -1).contiguous()
        bins = torch.searchsorted(above.contiguous(), wanted).clamp(max=self.num_bins - 1)
        own = p.gather(-1, bins)
        inside = ((wanted - (above.gather(-1, bins) - own)) / own.clamp(min=1e-30)).clamp(0, 1)
        return self.low + self._width * (bins + inside)

    def _by_bin(self, logits: Tensor) -> Tensor:
        """[N, K, B]."""
        return logits.reshape(len(logits), logits.shape[-1] // self.num_bins, self.num_bins)

    @property
    def _width(self) -> float:
        return (self.high - self.low) / self.num_bins
