"""Asymmetric loss for labels that do not exclude one another."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss


class Asymmetric(Loss):
    """Asymmetric loss: binary cross-entropy in which easy absent labels count little, and very easy ones nothing.

    Formula:
        ℓ = −Σ_j [y_j (1 − p_j)^γ₊ log p_j + (1 − y_j) q_j^γ₋ log(1 − q_j)], p_j = s(z_j), q_j = max(p_j − m, 0), s the
        sigmoid, of labels y_j in [0, 1]; the sum over the V classes, not their mean.
    Gradient:
        ∂ℓ/∂z_j = p_j (1 − p_j) [(1 − y_j) b_j − y_j a_j], a_j = (1 − p_j)^γ₊ / p_j − γ₊ (1 − p_j)^(γ₊ − 1) log p_j, and
        b_j = q_j^γ₋ / (1 − q_j) − γ₋ q_j^(γ₋ − 1) log(1 − q_j), which is 0 where p_j ≤ m.
    Source:
        Ridnik et al. 2021, arXiv:2009.14119.
    Use:
        For many labels of which a position has few. γ₋ = 4, γ₊ = 0 and m = 0.05 are the paper's; γ₋ should exceed γ₊.
    Weakness:
        No proper scoring rule: absent labels are predicted too probable, so that nll and calibration get worse. Labels
        that were missed in the data are forgiven with the easy ones.
    Prediction:
        log s(z_j) of each class; these probabilities do not sum to 1.
    Posterior:
        η_j = b_j / (a_j + b_j), the probability of label j.

    Args:
        gamma_positive: γ₊, 0 or above: how much less a label counts that is present and predicted well.
        gamma_negative: γ₋, 0 or above: how much less one counts that is absent and predicted well.
        clip: m, 0 or above and below 1: what is subtracted from the probability of an absent label.
    Raises:
        UserError: for values outside these ranges.
    """

    target_kind = TargetKind.LABELS

    def __init__(self, *, gamma_positive: float = 0.0, gamma_negative: float = 4.0, clip: float = 0.05) -> None:
        super().__init__()
        for name, value in {"gamma_positive": gamma_positive, "gamma_negative": gamma_negative}.items():
            if not 0 <= value < math.inf:
                raise UserError(f"loss.{name} must be 0 or above and finite, not {value}")
        if not 0 <= clip < 1:
            raise UserError(f"loss.clip must be in [0, 1), not {clip}")
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.clip = clip
        self.is_proper = gamma_positive == gamma_negative == clip == 0

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.to(logits.dtype)
        present = F.logsigmoid(logits)
        if self.gamma_positive:
            present = _power(torch.sigmoid(-logits), self.gamma_positive) * present
        absent = self._log_rest(logits)
        if self.gamma_negative:
            absent = _power(torch.sigmoid(logits) - self.clip, self.gamma_negative) * absent
        return -(target * present + (1 - target) * absent).sum(dim=-1)

    def _log_rest(self, logits: Tensor) -> Tensor:
        """log(1 − q)."""
        if self.clip == 0:
            return F.logsigmoid(-logits)
        return (torch.sigmoid(-logits) + self.clip).clamp(max=1.0).log()

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return F.logsigmoid(logits)

    def posterior(self, logits: Tensor) -> Tensor:
        p, rest = torch.sigmoid(logits), torch.sigmoid(-logits)
        q = (p - self.clip).clamp(min=0)
        if self.clip == self.gamma_positive == self.gamma_negative == 0:
            return p
        present = _slope(rest, p, F.logsigmoid(logits), self.gamma_positive)
        absent = _slope(q, (rest + self.clip).clamp(max=1.0), self._log_rest(logits), self.gamma_negative)
        absent = absent.masked_fill(p <= self.clip, 0.0)
        return absent / (absent + present)


def _power(base: Tensor, gamma: float) -> Tensor:
    """The base to γ, with a finite slope where it is 0 or less: a power below 1 has none there."""
    return base.clamp(min=torch.finfo(base.dtype).tiny) ** gamma


def _slope(q: Tensor, rest: Tensor, log_rest: Tensor, gamma: float) -> Tensor:
    """q^γ / (1 − q) − γ q^(γ − 1) log(1 − q), for q, 1 − q and its logarithm."""
    tiny = torch.finfo(q.dtype).tiny
    slope = _power(q, gamma) / rest.clamp(min=tiny)
    return slope if gamma == 0 else slope - gamma * _power(q, gamma - 1) * log_rest
