"""Entmax losses: sparse predictions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.smoothing import Smoothing

_HALVINGS = 60


class Entmax(Loss):
    """Entmax: softmax's loss with a sparse mapping in its place, which predicts exactly 0 for most classes.

    Formula:
        ℓ = p* · z + H_α(p*) − q · z − H_α(q), p* = entmax_α(z) = argmax_p p · z + H_α(p), H_α(p) = Σ_j (p_j − p_j^α) /
        (α (α − 1)): the Fenchel-Young loss of the Tsallis entropy, which is 0 where p* = q and above 0 elsewhere. α = 2
        is sparsemax, α → 1 the Kullback-Leibler divergence. q = (1 − ε) onehot(y) + ε / V is the smoothed target; with
        ε = 0 H_α(q) is 0, and the limit cross-entropy.
    Gradient:
        ∂ℓ/∂z_j = p*_j − q_j.
    Source:
        Peters, Niculae & Martins 2019, arXiv:1905.05702 (α = 1.5); sparsemax: Martins & Astudillo 2016,
        arXiv:1602.02068; smoothing: Peters & Martins 2021, arXiv:2103.10291.
    Use:
        Where few classes should be possible at all, as for decoding without a truncation of the tail. The loss is
        exactly 0, with no gradient, once the target's logit is 1 / (α − 1) above the others; not so with ε above 0.
    Weakness:
        One target that gets exactly 0 makes nll infinite: compare it by nll_scaled. It needs the largest logits of
        a position in order, or 60 halvings over all of them: slow with many classes. Smoothing wants every class
        predicted with ε / V or more, so that fewer zeros are left.
    Prediction:
        p*.
    Posterior:
        η = (p* − ε / V) / (1 − ε).

    Args:
        alpha: α in (1, 3]; 1.5 and 2 are computed exactly from a sort, others by bisection.
        label_smoothing: ε in [0, 1).
    Raises:
        UserError: for values outside these ranges.
    """

    cost_class = "F4"
    shift_invariant = True
    agrees = False

    def __init__(self, *, alpha: float = 1.5, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 1 < alpha <= 3:
            raise UserError(f"loss.alpha must be in (1, 3], not {alpha}")
        self.alpha = alpha
        self.smoothing = Smoothing(label_smoothing)
        self.is_proper = label_smoothing == 0

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        p = entmax(logits.detach(), self.alpha)  # by Danskin's theorem its own slope does not matter
        entropy = (p - p**self.alpha).sum(dim=-1) / (self.alpha * (self.alpha - 1))
        own = logits.gather(-1, target[:, None])[:, 0]
        if self.smoothing.epsilon == 0:
            return (p * logits).sum(dim=-1) + entropy - own
        num_outputs = logits.shape[-1]
        extra, off = self.smoothing.extra(num_outputs), self.smoothing.off(num_outputs)
        # One sum of products: the parts of p · z and q · z that all classes share cancel.
        return ((p - off) * logits).sum(dim=-1) - extra * own + entropy - self._entropy_of_target(num_outputs)

    def _entropy_of_target(self, num_outputs: int) -> float:
        """H_α(q)."""
        off = self.smoothing.off(num_outputs)
        on = off + self.smoothing.extra(num_outputs)
        powers: float = on**self.alpha + (num_outputs - 1) * off**self.alpha
        return (1 - powers) / (self.alpha * (self.alpha - 1))

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return entmax(logits, self.alpha).log()

    def posterior(self, logits: Tensor) -> Tensor:
        """η = p*, without the smoothing."""
        return self.smoothing.undone(entmax(logits, self.alpha))


@torch.no_grad()
def entmax(logits: Tensor, alpha: float) -> Tensor:
    """argmax_p p · z + H_α(p) over distributions: p_j = [(α − 1) z_j − τ]₊^(1 / (α − 1)); logits and p [N, V]."""
    scaled = (alpha - 1) * (logits - logits.amax(dim=-1, keepdim=True))
    if alpha == 2:
        tau = _sparsemax_threshold(scaled)
    elif alpha == 1.5:
        tau = _entmax15_threshold(scaled)
    else:
        tau = _bisected_threshold(scaled, alpha)
    p = (scaled - tau).clamp(min=0) ** (1 / (alpha - 1))
    return p / p.sum(dim=-1, keepdim=True)


def _candidates(z: Tensor) -> Tensor:
    """Entries of each row that the support can hold, in falling order: those within 1 of the largest, which is 0."""
    most = int((z > -1).sum(dim=-1).max()) if len(z) else 0
    most = max(1, most)  # a row of NaN has none, and stays NaN
    return z.topk(most, dim=-1).values


def _sparsemax_threshold(z: Tensor) -> Tensor:
    """τ with Σ [z − τ]₊ = 1: the mean over the support, less 1 over its size."""
    ordered = _candidates(z)
    size = torch.arange(1, ordered.shape[-1] + 1, dtype=z.dtype, device=z.device)
    tau = (ordered.cumsum(dim=-1) - 1) / size
    return _at_support(tau, ordered)


def _entmax15_threshold(z: Tensor) -> Tensor:
    """τ with Σ [z − τ]₊² = 1: over the k largest, mean − sqrt((1 − k · variance) / k)."""
    ordered = _candidates(z)
    size = torch.arange(1, ordered.shape[-1] + 1, dtype=z.dtype, device=z.device)
    mean = ordered.cumsum(dim=-1) / size
    variance = ordered.square().cumsum(dim=-1) / size - mean.square()
    tau = mean - ((1 - size * variance) / size).clamp(min=0).sqrt()
    return _at_support(tau, ordered)


def _at_support(tau: Tensor, ordered: Tensor) -> Tensor:
    """The τ [N, 1] of the largest support whose members all exceed it."""
    support = (tau <= ordered).sum(dim=-1, keepdim=True).clamp(min=1)
    return tau.gather(-1, support - 1)


def _bisected_threshold(z: Tensor, alpha: float) -> Tensor:
    """τ between where the largest alone has all the mass and where all of them share it evenly; z's largest is 0."""
    low = torch.full_like(z[:, :1], -1.0)
    high = torch.full_like(low, -math.exp((1 - alpha) * math.log(z.shape[-1])))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = ((z - middle).clamp(min=0) ** (1 / (alpha - 1))).sum(dim=-1, keepdim=True) >= 1
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low
