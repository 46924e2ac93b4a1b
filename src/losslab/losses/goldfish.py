"""Goldfish loss: forget some tokens on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from losslab.contracts import Features
from losslab.errors import UserError
from losslab.losses.base import Loss

_PRIME = 2**31 - 1
_MULTIPLIER = 48271
"""The multiplier of Park & Miller (1993), whose powers modulo the prime go through every number."""


class Goldfish(Loss):
    """Goldfish loss: cross-entropy that leaves out one target in k, so that no text can be recited word for word.

    Formula:
        ℓ = −log p_y, p = softmax(z), at the targets that are kept: all but those whose hash of the `context` tokens
        before them is 0 modulo k. The denominator counts what is kept.
    Gradient:
        ∂ℓ/∂z_j = p_j − [j = y] at the targets that are kept, and 0 at the others.
    Source:
        Hans et al. 2024, arXiv:2406.10209.
    Use:
        Against memorisation of training text. The same passage drops the same tokens in every copy, epoch and rank.
    Weakness:
        Learns from 1 − 1/k of the tokens; near-duplicates that differ within `context` tokens drop others.
    Prediction:
        softmax(z).
    Posterior:
        η = p.

    Args:
        k: one target in k is dropped, 2 or above; 3, 4 and 8 were released.
        context: how many tokens are hashed, 1 or more; targets with fewer before them are kept.
    Raises:
        UserError: for values outside these ranges.
    """

    cost_class = "F1"
    shift_invariant = True
    is_proper = True

    def __init__(self, *, k: int = 4, context: int = 13) -> None:
        super().__init__()
        if k < 2:
            raise UserError(f"loss.k must be 2 or above, not {k}: one target in k is dropped")
        if context < 1:
            raise UserError(f"loss.context must be 1 or above, not {context}")
        self.k = k
        self.needs = {"previous": context}
        self.context = context

    def select(self, features: Features) -> Features:
        return features.weighted(~self.dropped(features.extras["previous"]))

    def dropped(self, previous: Tensor) -> Tensor:
        """bool [N], for the tokens before each target, [N, K]; the latest first."""
        if previous.shape[1] < self.context:  # no window is that long
            return torch.zeros_like(previous[:, 0], dtype=torch.bool)
        previous = previous[:, : self.context].long()
        hashed = torch.zeros_like(previous[:, 0])
        for token in previous.unbind(dim=1):
            hashed = (hashed * _MULTIPLIER + token + 1) % _PRIME
        return (hashed * _MULTIPLIER % _PRIME % self.k == 0) & (previous >= 0).all(dim=1)

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)
