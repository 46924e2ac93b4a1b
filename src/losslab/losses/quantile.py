"""Quantile loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from losslab.contracts import TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss


class Quantile(Loss):
    """Quantile (pinball) loss: several quantiles of every value at once.

    Formula:
        ℓ = 1 / (K Q) Σ_k Σ_q max(τ_q e_kq, (τ_q − 1) e_kq), e_kq = y_k − z_kq, of K Q outputs: the Q levels τ of the
        first value, then those of the second, …
    Gradient:
        ∂ℓ/∂z_kq = ([z_kq > y_k] − τ_q) / (K Q), half of the jump where they are equal
    Source:
        Koenker & Bassett 1978, "Regression quantiles".
    Use:
        For intervals without an assumed distribution: levels 0.1 and 0.9 hold 80% of the values between them.
    Weakness:
        Nothing keeps the quantiles in order, so that they may cross; those near 0 and 1 rest on few positions.
    Prediction:
        The quantile whose level is nearest to ½, the lower of two that are equally near.
    Posterior:
        The minimiser of each output is the conditional quantile of y at its level.

    Args:
        levels: τ, rising numbers between 0 and 1; at least one.
    Raises:
        UserError: for other levels.
    """

    target_kind = TargetKind.VALUES

    def __init__(self, *, levels: list[float] | tuple[float, ...] = (0.1, 0.5, 0.9)) -> None:
        super().__init__()
        inside = all(0 < level < 1 for level in levels)
        if not (levels and inside and all(low < high for low, high in pairwise(levels))):
            raise UserError(f"loss.levels must be rising numbers in (0, 1), at least one, not {list(levels)}")
        self.levels = tuple(levels)

    def num_outputs(self, size: int) -> int:
        return size * len(self.levels)

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        errors = (target.to(logits.dtype)[..., None] - self._by_level(logits)).unbind(dim=-1)
        pinball = [
            torch.maximum(level * error, (level - 1) * error) for level, error in zip(self.levels, errors, strict=True)
        ]
        return torch.cat(pinball, dim=-1).mean(dim=-1)

    def predict_values(self, logits: Tensor) -> Tensor:
        middle = min(range(len(self.levels)), key=lambda i: abs(self.levels[i] - 0.5))
        return self._by_level(logits)[..., middle]

    def predict_quantiles(self, logits: Tensor, levels: Sequence[float]) -> Tensor | None:
        if not set(levels) <= set(self.levels):
            return None
        return self._by_level(logits)[..., [self.levels.index(level) for level in levels]]

    def _by_level(self, logits: Tensor) -> Tensor:
        """[N, K, Q]."""
        return logits.reshape(len(logits), logits.shape[-1] // len(self.levels), len(self.levels))
