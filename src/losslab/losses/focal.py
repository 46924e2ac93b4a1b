"""Focal loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class Focal(Loss):
    """Focal loss: positions that are predicted well count less.

    Formula:
        ℓ = −(1 − p_y)^γ log p_y, p = softmax(z). With `sample_dependent` (FLSD-53) γ is 5 where p_y < 0.2, 3 where
        p_y < 0.5, and `gamma` above.
    Gradient:
        ∂ℓ/∂z_j = [(1 − p_y)^γ − γ p_y (1 − p_y)^(γ − 1) log p_y] (p_j − [j = y]).
    Source:
        Lin et al. 2017, arXiv:1708.02002; FLSD-53: Mukhoti et al. 2020, arXiv:2002.09437; its posterior: Charoenphakdee
        et al. 2020, arXiv:2011.09172.
    Use:
        Where easy positions drown the hard ones, as background does in detection (γ = 2), and against overconfidence
        (γ = 3, or FLSD-53).
    Weakness:
        No proper scoring rule: p is not the posterior, and mostly too cautious. Wrong labels are hard positions, and
        count in full. With FLSD-53 the value jumps at p_y = 0.2 and 0.5.
    Prediction:
        softmax(z).
    Posterior:
        η_j ∝ p_j / [(1 − p_j)^γ − γ p_j (1 − p_j)^(γ − 1) log p_j]; none in closed form with `sample_dependent`.

    Args:
        gamma: γ, 0 or above; 0 is cross-entropy.
        sample_dependent: choose γ by p_y.
    Raises:
        UserError: for a γ outside this range.
    """

    cost_class = "F1"
    shift_invariant = True

    def __init__(self, *, gamma: float = 2.0, sample_dependent: bool = False) -> None:
        super().__init__()
        if not 0 <= gamma < math.inf:
            raise UserError(f"loss.gamma must be 0 or above and finite, not {gamma}")
        self.gamma = gamma
        self.sample_dependent = sample_dependent

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -(_one_minus_exp(log_prob) ** self._exponent(log_prob)) * log_prob

    def posterior_of_softmax(self, p: Tensor, log_p: Tensor) -> Tensor | None:
        """η ∝ p / [(1 − p)^γ − γ p (1 − p)^(γ − 1) log p]; none where γ jumps."""
        if self.sample_dependent:
            return None
        if self.gamma == 0:
            return p
        rest, gamma = _rest(p, log_p), self.gamma
        slope = torch.add(rest, log_p.mul_(p), alpha=-gamma, out=log_p)  # divided by (1 − p)^(γ − 1)
        if gamma != 1:
            slope.mul_(rest.pow_(gamma - 1))
        # Near p = 1 with γ above 1 the slope vanishes, and the ratio is decided by its smallest number.
        odds = torch.div(p, slope.clamp_(min=torch.finfo(p.dtype).tiny), out=slope)
        return odds.mul_(1 / odds.sum(dim=-1, keepdim=True))

    def _exponent(self, log_prob: Tensor) -> Tensor | float:
        if not self.sample_dependent:
            return self.gamma
        p = log_prob.detach().exp()
        gamma = torch.full_like(p, self.gamma)
        return gamma.masked_fill(p < 0.5, 3.0).masked_fill(p < 0.2, 5.0)


def _one_minus_exp(log_prob: Tensor) -> Tensor:
    """1 − p, exact near p = 1, and never 0: a power below 1 has no slope there."""
    return -torch.expm1(log_prob).clamp(max=-torch.finfo(log_prob.dtype).tiny)


def _rest(p: Tensor, log_p: Tensor) -> Tensor:
    """1 − p of every class [N, V]: where p is above 1/2, as one of a position can be, from log p, exact near p = 1."""
    rest = 1 - p
    sure = (p.amax(dim=-1) > 0.5).nonzero()[:, 0]
    where = p[sure].argmax(dim=-1)
    rest[sure, where] = _one_minus_exp(log_p[sure, where])
    return rest
