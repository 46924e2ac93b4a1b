"""Kullback-Leibler divergence to the smoothed target."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.statistics import Statistics


class KLDivergence(Loss):
    """ℓ = KL(q ‖ p) = Σ_j q_j (log q_j − log p_j), q = (1 − ε) onehot(y) + ε / V, p = softmax(z).

    Its gradient is that of cross-entropy with label smoothing ε; its value is lower by the constant entropy H(q)
    (Szegedy et al. 2016, arXiv:1512.00567; as a KL: Rush 2018, The Annotated Transformer).

    Args:
        label_smoothing: ε in [0, 1).

    Raises:
        UserError: for an ε outside this range.
    """

    cost_class = "F2"
    shift_invariant = True

    def __init__(self, *, label_smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"loss.label_smoothing must be in [0, 1), not {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.is_proper = label_smoothing == 0

    def linear_weights(self, num_outputs: int) -> Tensor | None:
        # Σ_j q_j log p_j needs only log p_y and the mean of the logits: q is never built.
        return torch.full((num_outputs,), 1 / num_outputs, dtype=torch.float64) if self.label_smoothing else None

    def from_statistics(self, statistics: Statistics) -> Tensor:
        own = -(1 - self.label_smoothing) * statistics.log_prob - self._entropy(statistics.num_outputs)
        if statistics.linear is None:
            return own
        return own + self.label_smoothing * (statistics.logsumexp - statistics.linear)

    def _entropy(self, num_outputs: int) -> float:
        """H(q)."""
        off = self.label_smoothing / num_outputs
        on = 1 - self.label_smoothing + off
        return -on * math.log(on) - ((num_outputs - 1) * off * math.log(off) if off > 0 else 0.0)

    def posterior(self, logits: Tensor) -> Tensor:
        """p = (1 − ε) η + ε / V, solved for η."""
        p = logits.softmax(dim=-1)
        return (p - self.label_smoothing / p.shape[-1]) / (1 - self.label_smoothing)
