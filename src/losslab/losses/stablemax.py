"""StableMax cross-entropy."""

from __future__ import annotations

from torch import Tensor

from losslab.losses.base import Loss


class StableMax(Loss):
    """ℓ = −log (s(z_y) / Σ_j s(z_j)), s(z) = z + 1 for z ≥ 0 and 1 / (1 − z) below.

    Prieto et al. 2025, arXiv:2501.04697, against the collapse of softmax in float32. It is cross-entropy of
    log s(z) = sign(z) log(1 + |z|). It sees a shift of the logits, and over many classes its tail is heavy.
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
