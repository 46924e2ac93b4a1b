"""Unlikelihood training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.contracts import Features
from losslab.errors import UserError
from losslab.losses.base import Loss

_WHOLE_CONTEXT = 2**20


class Unlikelihood(Loss):
    """Unlikelihood training: cross-entropy, and a penalty for tokens that were there before.

    Formula:
        ℓ = −log p_y − α Σ_{c∈C} log(1 − p_c), p = softmax(z), C the set of tokens before the target, without it.
    Gradient:
        ∂ℓ/∂z_j = p_j − [j = y] + α Σ_{c∈C} p_c ([j = c] − [j ≠ c] p_j / (1 − p_c)).
    Source:
        Welleck et al. 2019, arXiv:1908.04319.
    Use:
        Against repetition in generated text; nll gets slightly worse for it.
    Weakness:
        Frequent words are rightly repeated, and are punished too; no proper scoring rule.
    Prediction:
        softmax(z).
    Posterior:
        None in closed form, for C differs from position to position.

    Args:
        alpha: α, 0 or above.
        window: how many tokens before the target make up C; null: all of the context.
    Raises:
        UserError: for values outside these ranges.
    """

    shift_invariant = True

    def __init__(self, *, alpha: float = 1.0, window: int | None = None) -> None:
        super().__init__()
        if not 0 <= alpha < math.inf:
            raise UserError(f"loss.alpha must be 0 or above and finite, not {alpha}")
        if window is not None and window < 1:
            raise UserError(f"loss.window must be 1 or above, not {window}")
        self.alpha = alpha
        self.window = _WHOLE_CONTEXT if window is None else window
        self.needs = {"previous": self.window}
        self.terms = ("likelihood", "unlikelihood")

    def from_logits(self, logits: Tensor, features: Features) -> dict[str, Tensor]:
        logsumexp = logits.logsumexp(dim=-1)
        own = logsumexp - logits.gather(-1, features.target[:, None])[:, 0]
        candidates = seen(features.extras["previous"][:, : self.window], logits.shape[-1])
        candidates.scatter_(-1, features.target[:, None], False)
        penalty = -log_one_minus_softmax(logits).masked_fill(~candidates, 0.0).sum(dim=-1)
        return {"likelihood": own, "unlikelihood": self.alpha * penalty}


def seen(previous: Tensor, num_outputs: int) -> Tensor:
    """bool [N, V]: which classes are among `previous` [N, K], where -1 is none."""
    marked = torch.zeros(len(previous), num_outputs + 1, dtype=torch.bool, device=previous.device)
    return marked.scatter_(-1, previous.long() + 1, True)[:, 1:].contiguous()


def log_one_minus_softmax(logits: Tensor) -> Tensor:
    """log(1 − p_j) [N, V], exact where p_j is near 1: there it is the logsumexp of the others less that of all."""
    top = logits.argmax(dim=-1, keepdim=True)
    rest = logits.scatter(-1, top, -math.inf).logsumexp(dim=-1, keepdim=True) - logits.logsumexp(dim=-1, keepdim=True)
    p = logits.softmax(dim=-1).scatter(-1, top, 0.0)  # of the others p is at most ½
    return torch.log1p(-p).scatter(-1, top, rest)
