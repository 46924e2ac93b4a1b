"""Dynamic fine-tuning."""

from __future__ import annotations

from torch import Tensor

from losslab.losses.base import Loss


class DynamicFineTuning(Loss):
    """ℓ = −sg(p_y) log p_y, p = softmax(z), sg without gradient: for fine-tuning a network that already predicts well.

    Wu et al. 2025, arXiv:2508.05629. Its gradient is that of 1 − p_y, p_y times cross-entropy's: from random weights,
    where p_y is near 1 / V, it hardly learns.
    """

    cost_class = "F1"
    shift_invariant = True
    has_detached = True

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob.detach().exp() * log_prob
