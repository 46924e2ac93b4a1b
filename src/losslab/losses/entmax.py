"""Entmax losses: sparse predictions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.execution import Chunk, Execution
from losslab.losses.gradient_sums import Gradients
from losslab.losses.smoothing import Smoothing

_HALVINGS = 60
_MOST_STEPS = 64
"""Newton's steps; about six are needed."""
_SLICES = 4
"""Positions are taken this many times as many at once as where autograd keeps copies of their logits."""


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
        One target that gets exactly 0 makes nll infinite: compare it by nll_scaled. It needs some six passes over the
        logits of a position, or 60 where α is neither 1.5 nor 2. Smoothing wants every class
        predicted with ε / V or more, so that fewer zeros are left.
    Prediction:
        p*.
    Posterior:
        η = (p* − ε / V) / (1 − ε).

    Args:
        alpha: α in (1, 3]; 1.5 and 2 are computed by Newton's method, others by bisection.
        label_smoothing: ε in [0, 1).
    Raises:
        UserError: for values outside these ranges.
    """

    cost_class = "F4"
    shift_invariant = True
    agrees = False
    forward_sums_scores = True

    def __init__(self, *, alpha: float = 1.5, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 1 < alpha <= 3:
            raise UserError(f"loss.alpha must be in (1, 3], not {alpha}")
        self.alpha = alpha
        self.smoothing = Smoothing(label_smoothing)
        self.is_proper = label_smoothing == 0

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self._loss(logits, target, entmax(logits.detach(), self.alpha))

    def _loss(self, logits: Tensor, target: Tensor, p: Tensor) -> Tensor:
        """The loss, given p*, whose own slope does not matter by Danskin's theorem."""
        power = p * p.sqrt() if self.alpha == 1.5 else p**self.alpha
        entropy = (p.sum(dim=-1) - power.sum(dim=-1)) / (self.alpha * (self.alpha - 1))
        own = logits.gather(-1, target[:, None])[:, 0]
        if self.smoothing.epsilon == 0:
            return (p * logits).sum(dim=-1) + entropy - own
        num_outputs = logits.shape[-1]
        extra, off = self.smoothing.extra(num_outputs), self.smoothing.off(num_outputs)
        # One sum of products: the parts of p · z and q · z that all classes share cancel.
        return ((p - off) * logits).sum(dim=-1) - extra * own + entropy - self._entropy_of_target(num_outputs)

    def forward(self, features: Features, projection: Projection) -> LossSum:
        """Compute what `position_loss` leads to with the gradient that its formula gives: no graph of the logits."""
        execution = Execution(self, features, projection)
        linear = execution.projection

        def add(chunk: Chunk, gradients: Gradients) -> Tensor:
            logits = execution.logits(chunk, gradients).float()
            total = logits.new_zeros(())
            for piece in chunk.slices(_SLICES * execution.slice_rows):
                z, target = logits[piece.rows], piece.features.target
                p = entmax(z, self.alpha)
                total += execution.weigh(piece, self._loss(z, target, p))
                if gradients.needed:
                    self._take_target(p, target)
                    z.copy_(p)
            if gradients.needed:
                gradients.add_logits(chunk.rows, logits, chunk.weight[:, None], chunk.features.hidden, linear)
            return total

        return execution.run(add)

    def _take_target(self, p: Tensor, target: Tensor) -> None:
        """p − q, in the place of p."""
        num_outputs = p.shape[-1]
        if self.smoothing.epsilon:
            p.sub_(self.smoothing.off(num_outputs))
        extra = torch.full_like(target, -self.smoothing.extra(num_outputs), dtype=p.dtype)
        p.scatter_add_(-1, target[:, None], extra[:, None])

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
    scaled = (logits - logits.amax(dim=-1, keepdim=True)).mul_(alpha - 1)
    exact = alpha in (1.5, 2)
    tau = _threshold(scaled, squared=alpha == 1.5) if exact else _bisected_threshold(scaled, alpha)
    p = scaled.sub_(tau).clamp_(min=0)
    p = p.square_() if alpha == 1.5 else p if alpha == 2 else p.pow_(1 / (alpha - 1))
    return p.mul_(1 / p.sum(dim=-1, keepdim=True))


def _threshold(z: Tensor, *, squared: bool) -> Tensor:
    """τ [N, 1] with Σ [z − τ]₊ = 1, or with Σ [z − τ]₊² = 1; z's largest is 0.

    Newton's method on the norm of [z − τ]₊, less 1: it is convex in τ, so that steps from −1, where it is 0 or above,
    never pass its root.
    """
    tau, rest = torch.full_like(z[:, :1], -1.0), torch.empty_like(z)
    smallest = 4 * torch.finfo(z.dtype).eps
    for _ in range(_MOST_STEPS):
        torch.sub(z, tau, out=rest).clamp_(min=0)
        total = rest.sum(dim=-1, keepdim=True)
        if squared:
            norm = torch.linalg.vector_norm(rest, dim=-1, keepdim=True)
            step = (norm - 1) * norm / total
        else:
            step = (total - 1) / rest.count_nonzero(dim=-1)[:, None]
        tau += step
        if not bool((step > smallest).any()):  # a row of NaN stays NaN
            break
    return tau


def _bisected_threshold(z: Tensor, alpha: float) -> Tensor:
    """τ between where the largest alone has all the mass and where all of them share it evenly; z's largest is 0."""
    low = torch.full_like(z[:, :1], -1.0)
    high = torch.full_like(low, -math.exp((1 - alpha) * math.log(z.shape[-1])))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = ((z - middle).clamp(min=0) ** (1 / (alpha - 1))).sum(dim=-1, keepdim=True) >= 1
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low
