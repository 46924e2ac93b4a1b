"""Cross-entropy with a confidence penalty."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class ConfidencePenalty(Loss):
    """Confidence penalty: cross-entropy less the prediction's entropy, so that certainty costs something.

    Formula:
        ℓ = −log p_y − β H(p), H(p) = −Σ_j p_j log p_j, p = softmax(z). The value may be negative, down to −β log V.
    Gradient:
        ∂ℓ/∂z_j = p_j − [j = y] + β p_j (log p_j + H(p)).
    Source:
        Pereyra et al. 2017, arXiv:1701.06548.
    Use:
        Instead of label smoothing, which lifts each class to ε / V: this hardly touches improbable ones. β = 0.1 for
        translation, up to 1 for few classes. As `regularizers.confidence_penalty` it joins other losses too.
    Weakness:
        The predictions are too cautious on purpose, and nll the worse for it; needs the entropy, a sum over all logits.
    Prediction:
        softmax(z).
    Posterior:
        η_j = p_j (1 + β (log p_j + H(p))); negative entries are no posterior, and are clipped.

    Args:
        beta: β, 0 or above; 0 is cross-entropy.
    Raises:
        UserError: for a β outside this range.
    """

    shift_invariant = True

    def __init__(self, *, beta: float = 0.1) -> None:
        super().__init__()
        if not 0 <= beta < math.inf:
            raise UserError(f"loss.beta must be 0 or above and finite, not {beta}")
        self.beta = beta

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=-1)
        entropy = -(log_p.exp() * log_p).sum(dim=-1)
        return -log_p.gather(-1, target[:, None])[:, 0] - self.beta * entropy

    def posterior_of_softmax(self, p: Tensor, log_p: Tensor) -> Tensor:
        """η_j = p_j (1 + β (log p_j + H(p)))."""
        entropy = -(p * log_p).sum(dim=-1, keepdim=True)
        return torch.addcmul(p, p, log_p + entropy, value=self.beta)
