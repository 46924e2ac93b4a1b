"""StableMax cross-entropy."""

from __future__ import annotations

from torch import Tensor

from losslab.losses.base import Loss


class StableMax(Loss):
    """StableMax: cross-entropy with a slowly growing function instead of the exponential.

    Formula:
        ℓ = −log (s(z_y) / Σ_j s(z_j)), s(z) = z + 1 for z ≥ 0 and 1 / (1 − z) below: cross-entropy of the logits log
        s(z) = sign(z) log(1 + |z|).
    Gradient:
        ∂ℓ/∂z_j = (p_j − [j = y]) / (1 + |z_j|), p_j = s(z_j) / Σ_i s(z_i).
    Source:
        Prieto et al. 2025, arXiv:2501.04697.
    Use:
        Against the collapse of softmax in float32, where p_y rounds to 1 and learning stops, as in grokking.
    Weakness:
        It sees a shift of the logits, and its tail is heavy: over many classes each must be pushed far down before the
        target gets much, while the gradient falls as 1 / |z|.
    Prediction:
        p, of its own s instead of softmax.
    Posterior:
        η = p.
    """

    is_proper = True

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return -self.predict_log_probs(logits).gather(-1, target[:, None])[:, 0]

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        log_s = logits.clamp(min=0).log1p() - (-logits).relu().log1p()  # of the two, one has the slope at 0
        return log_s.log_softmax(dim=-1)

    def posterior(self, logits: Tensor) -> Tensor:
        """η is what it predicts."""
        return self.predict_log_probs(logits).exp()
