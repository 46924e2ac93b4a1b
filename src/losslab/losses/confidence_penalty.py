"""Cross-entropy with a confidence penalty."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class ConfidencePenalty(Loss):
    """ℓ = −log p_y − β H(p), H(p) = −Σ_j p_j log p_j, p = softmax(z): certainty costs something.

    Pereyra et al. 2017, arXiv:1701.06548. The value may be negative, down to −β log V.

    Args:
        beta: β, 0 or above.

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

    def posterior(self, logits: Tensor) -> Tensor:
        """η_j = p_j (1 + β (log p_j + H(p)))."""
        log_p = logits.log_softmax(dim=-1)
        p = log_p.exp()
        entropy = -(p * log_p).sum(dim=-1, keepdim=True)
        return torch.addcmul(p, p, log_p + entropy, value=self.beta)
