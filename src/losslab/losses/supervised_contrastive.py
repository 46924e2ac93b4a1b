"""Supervised contrastive learning beside cross-entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss

_NEVER = -1e30
"""A similarity that takes no share, in bfloat16 too; −inf would make a batch of one position NaN."""


class SupervisedContrastive(Loss):
    """Supervised contrastive: cross-entropy, and hidden states of one class drawn together, of others apart.

    Formula:
        ℓ_i = (1 − λ) (−log p_y) + λ (−1 / |P_i|) Σ_{j∈P_i} log (e^{s_ij} / Σ_{k≠i} e^{s_ik}), s_ij = cos(h_i, h_j) / τ,
        P_i the other positions of the batch that have the class of i; the second term is 0 where there are none.
    Gradient:
        That of its terms, into hidden states and projection; the second term has none in the projection.
    Source:
        Gunel et al. 2021, arXiv:2011.01403; the second term: Khosla et al. 2020, arXiv:2004.11362.
    Use:
        For classification with few labels, fine-tuning above all; the paper's best λ is 0.9 and τ 0.3. Batches must
        hold several samples of a class.
    Weakness:
        Positions are compared within a batch, so that its size counts, and the batch must not be split among devices or
        micro-batches. N × N similarities, and all logits of a batch at once: not for language models.
    Prediction:
        softmax(z).
    Posterior:
        η = p, as far as cross-entropy decides.

    Args:
        share: λ, from 0, cross-entropy, to below 1.
        tau: τ, above 0.
    Raises:
        UserError: for values outside these ranges.
    """

    position_wise = False
    trains_otherwise = True

    def __init__(self, *, share: float = 0.9, tau: float = 0.3) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise UserError(f"loss.share must be in [0, 1), not {share}")
        if not 0 < tau < math.inf:
            raise UserError(f"loss.tau must be above 0 and finite, not {tau}")
        self.share = share
        self.tau = tau
        self.terms = ("cross_entropy", "contrastive")

    def values(self, features: Features, projection: Projection) -> dict[str, Tensor]:
        """In training both terms; an evaluation leaves the second out, which depends on who shares a batch."""
        own = self.from_logits(self.scores(features.hidden, projection), features)
        found = {"cross_entropy": (1 - self.share) * own}
        if self.training:
            contrast = contrastive(features.hidden, features.target, self.tau)
            found["contrastive"] = self.share * contrast.to(own.dtype)
        return found

    def from_logits(self, logits: Tensor, features: Features) -> Tensor:
        return -logits.log_softmax(dim=-1).gather(-1, features.target[:, None])[:, 0]

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)


def contrastive(hidden: Tensor, target: Tensor, tau: float) -> Tensor:
    """−1 / |P_i| Σ_{j∈P_i} log softmax_{k≠i}(cos(h_i, h_k) / τ)_j [N], 0 where P_i is empty; hidden [N, D]."""
    unit = F.normalize(hidden.float(), dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similar = ((unit @ unit.T).float() / tau).masked_fill(itself, _NEVER)
    positive = (target[:, None] == target) & ~itself
    log_share = similar.log_softmax(dim=-1).masked_fill(~positive, 0.0)
    return -log_share.sum(dim=-1) / positive.sum(dim=-1).clamp(min=1)
