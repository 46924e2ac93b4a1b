"""Cross-entropy with label smoothing, class weights and a temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.statistics import Statistics
from losslab.types import Features, OutputSpec


class CrossEntropy(Loss):
    """ℓ = (1 − ε) w_y (−log p_y) + (ε / V) Σ_j w_j (−log p_j), p = softmax(z / T), divided by Σ w_y.

    Smoothing and weights follow torch.nn.functional.cross_entropy (Szegedy et al. 2016, arXiv:1512.00567).

    Args:
        label_smoothing: ε in [0, 1).
        temperature: T > 0; predictions are made at the same temperature.
        class_weights: w, one number above 0 for each of the V classes.

    Raises:
        UserError: for values outside these ranges, and in `bind` for a wrong number of class weights.
    """

    cost_class = "F2"
    shift_invariant = True

    def __init__(
        self, *, label_smoothing: float = 0.0, temperature: float = 1.0, class_weights: list[float] | None = None
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"loss.label_smoothing must be in [0, 1), not {label_smoothing}")
        if not 0 < temperature < math.inf:
            raise UserError(f"loss.temperature must be above 0 and finite, not {temperature}")
        if class_weights is not None and not all(0 < weight < math.inf for weight in class_weights):
            raise UserError("loss.class_weights must all be above 0 and finite")
        self.label_smoothing = label_smoothing
        self.is_proper = label_smoothing == 0 and class_weights is None
        self.temperature = temperature
        self.class_weights: Tensor | None  # [V]
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def bind(self, spec: OutputSpec) -> None:
        if self.class_weights is not None and len(self.class_weights) != spec.num_outputs:
            raise UserError(f"loss.class_weights has {len(self.class_weights)} numbers for {spec.num_outputs} classes")

    def linear_weights(self, num_outputs: int) -> Tensor | None:
        """w / V: the smoothed part needs Σ_j w_j z_j / V."""
        if self.label_smoothing == 0:
            return None
        weights = torch.ones(num_outputs, dtype=torch.float64) if self.class_weights is None else self.class_weights
        return weights.double() / num_outputs

    def from_statistics(self, statistics: Statistics) -> Tensor:
        own = -statistics.log_prob
        if self.class_weights is not None:
            own = own * self.class_weights.to(own.dtype)[statistics.target]
        if statistics.linear is None:
            return own
        mean_weight = 1.0 if self.class_weights is None else self.class_weights.to(own.dtype).mean()
        smoothed = mean_weight * statistics.logsumexp - statistics.linear
        return (1 - self.label_smoothing) * own + self.label_smoothing * smoothed

    def position_weight(self, features: Features) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights[features.target]

    def posterior(self, logits: Tensor) -> Tensor:
        """p_j ∝ w_j ((1 − ε) η_j + ε / V), solved for η."""
        p = self.predict_log_probs(logits).exp()
        if self.class_weights is not None:
            p = p / self.class_weights.to(p.dtype)
            p = p / p.sum(dim=-1, keepdim=True)
        if self.label_smoothing == 0:
            return p
        return (p - self.label_smoothing / p.shape[-1]) / (1 - self.label_smoothing)
