"""Kullback-Leibler divergence to the smoothed target."""

from __future__ import annotations

import math

from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


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

    def __init__(self, *, label_smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"loss.label_smoothing must be in [0, 1), not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        # Σ_j q_j log p_j needs only log p_y and the mean of the log-probabilities: q is never built.
        epsilon, num_outputs = self.label_smoothing, logits.shape[-1]
        log_p = logits.log_softmax(dim=-1)
        log_p_y = log_p.gather(-1, target[:, None])[:, 0]
        on, off = 1 - epsilon + epsilon / num_outputs, epsilon / num_outputs
        entropy = -on * math.log(on) - ((num_outputs - 1) * off * math.log(off) if off > 0 else 0.0)
        return -(1 - epsilon) * log_p_y - epsilon * log_p.mean(dim=-1) - entropy

    def posterior(self, logits: Tensor) -> Tensor:
        """p = (1 − ε) η + ε / V, solved for η."""
        p = logits.softmax(dim=-1)
        return (p - self.label_smoothing / p.shape[-1]) / (1 - self.label_smoothing)
