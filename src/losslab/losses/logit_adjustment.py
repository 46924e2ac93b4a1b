"""Logit adjustment for unequal class frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.contracts import OutputSpec
from losslab.errors import UserError
from losslab.losses.base import Loss


class LogitAdjustment(Loss):
    """Logit adjustment: cross-entropy with the classes' frequencies added to the logits, which then need not hold them.

    Formula:
        ℓ = −log softmax(z + τ log π)_y, π_j = (count_j + 1) / (N + V), the classes' shares in train.
    Gradient:
        ∂ℓ/∂z_j = p_j − [j = y], p = softmax(z + τ log π).
    Source:
        Menon et al. 2020, arXiv:2007.07314.
    Use:
        For long tails: the prediction softmax(z) is balanced over classes, so rare ones are found more often.
    Weakness:
        Its nll is worse by design, for frequent classes are frequent; compare it by a class-balanced measure.
    Prediction:
        softmax(z), without the frequencies.
    Posterior:
        η = softmax(z + τ log π).

    Args:
        tau: τ, 0 or above; 0 is cross-entropy.
    Raises:
        UserError: for a τ outside this range.
    """

    per_class = True
    shift_invariant = True

    def __init__(self, *, tau: float = 1.0) -> None:
        super().__init__()
        if not 0 <= tau < math.inf:
            raise UserError(f"loss.tau must be 0 or above and finite, not {tau}")
        self.tau = tau
        self.log_prior: Tensor

    def bind(self, spec: OutputSpec) -> None:
        """Take the prior from the counts; without any it is left to the checkpoint that is about to be read."""
        log_prior = torch.zeros(spec.num_classes)
        if spec.class_counts is not None:
            counts = spec.class_counts.double() + 1
            log_prior = (counts / counts.sum()).log().float()
        self.register_buffer("log_prior", log_prior)

    def map_logits(self, logits: Tensor) -> Tensor:
        return logits + self.tau * self.log_prior

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return (logits - self.tau * self.log_prior).log_softmax(dim=-1)

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)
