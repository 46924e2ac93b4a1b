"""Dynamic fine-tuning."""

from __future__ import annotations

from torch import Tensor

from losslab.losses.base import Loss


class DynamicFineTuning(Loss):
    """Dynamic fine-tuning: cross-entropy weighted by the target's own probability, for networks that predict well.

    Formula:
        ℓ = −sg(p_y) log p_y, p = softmax(z), sg without gradient.
    Gradient:
        ∂ℓ/∂z_j = p_y (p_j − [j = y]), that of 1 − p_y.
    Source:
        Wu et al. 2025, arXiv:2508.05629.
    Use:
        For fine-tuning a pretrained network on instructions: targets that it finds absurd hardly move it.
    Weakness:
        From random weights, where p_y is near 1 / V, it hardly learns. Its best prediction is one class for certain, so
        that probabilities become overconfident; the value has a maximum at p_y = 1 / e, and is no measure of quality.
    Prediction:
        softmax(z).
    Posterior:
        None: the minimiser puts everything on one class.
    """

    cost_class = "F1"
    shift_invariant = True
    has_detached = True

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob.detach().exp() * log_prob
