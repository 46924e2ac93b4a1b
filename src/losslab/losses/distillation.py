"""Distillation from a trained run."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from losslab.contracts import Features
from losslab.errors import UserError
from losslab.losses.base import Loss

Divergence = Literal["forward", "reverse", "symmetric", "jensen_shannon", "total_variation"]
_FLOOR = -80.0
"""A floor for the teacher's log-probabilities: a sparse teacher's zeros would make the reverse divergence infinite."""


class Distillation(Loss):
    """Distillation: learn the whole distribution that a trained run predicts, beside the targets.

    Formula:
        ℓ = α T² D(q, p) + (1 − α) (−log softmax(z)_y), p = softmax(z / T), q the teacher's probabilities at T. D is
        KL(q ‖ p) (forward), KL(p ‖ q) (reverse), (1 − β) KL(q ‖ p) + β KL(p ‖ q) (symmetric),
        β KL(q ‖ m) + (1 − β) KL(p ‖ m) with m = β q + (1 − β) p (jensen_shannon; for β = 0 KL(q ‖ p), for β = 1
        KL(p ‖ q)), or ½ Σ_j |p_j − q_j| (total_variation, times T instead of T²).
    Gradient:
        Forward: ∂ℓ/∂z_j = α T (p_j − q_j) + (1 − α) (softmax(z)_j − [j = y]).
    Source:
        Hinton et al. 2015, arXiv:1503.02531; reverse: Gu et al. 2023, arXiv:2306.08543; generalised Jensen-Shannon:
        Agarwal et al. 2023, arXiv:2306.13649; total variation: Wen et al. 2023, arXiv:2307.15190.
    Use:
        To train a small network from a large one: loss.teacher=RUN_DIR. Forward covers all that the teacher does,
        reverse settles on its main modes. T = 2 to 4 for classification, 1 for language models.
    Weakness:
        Costs a forward pass of the teacher, and both projections; a teacher trained with label smoothing teaches worse.
    Prediction:
        softmax(z), at temperature 1.
    Posterior:
        None in closed form: at the optimum p is the teacher's mixture with the data.

    Args:
        teacher: the folder of a completed run with the same vocabulary; its best checkpoint teaches.
        divergence: D.
        temperature: T, above 0.
        alpha: α in [0, 1], the teacher's share against the targets'.
        beta: β in [0, 1], of symmetric and jensen_shannon.
    Raises:
        UserError: for values outside these ranges.
    """

    shift_invariant = True
    reads_teacher = True

    def __init__(
        self,
        *,
        teacher: str | None = None,
        divergence: Divergence = "forward",
        temperature: float = 1.0,
        alpha: float = 0.5,
        beta: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise UserError(f"loss.temperature must be above 0 and finite, not {temperature}")
        if not 0 <= alpha <= 1:
            raise UserError(f"loss.alpha must be in [0, 1], not {alpha}")
        if not 0 <= beta <= 1:
            raise UserError(f"loss.beta must be in [0, 1], not {beta}")
        self.teacher = teacher
        self.divergence = divergence
        self.softness = temperature  # `temperature` would be that of the predictions
        self.alpha = alpha
        self.beta = beta
        self.terms = ("hard", "soft")

    def from_logits(self, logits: Tensor, features: Features) -> dict[str, Tensor]:
        if self.teacher_log_probs is None:
            raise UserError("loss.teacher is missing: name the folder of the run to learn from")
        hard = logits.logsumexp(dim=-1) - logits.gather(-1, features.target[:, None])[:, 0]
        with torch.no_grad():
            taught = self.teacher_log_probs(features.extras["teacher_hidden"]).to(logits.dtype).clamp(min=_FLOOR)
            log_q = (taught / self.softness).log_softmax(dim=-1)
        soft = self._between(log_q, (logits / self.softness).log_softmax(dim=-1))
        factor = self.softness if self.divergence == "total_variation" else self.softness**2
        return {"hard": (1 - self.alpha) * hard, "soft": self.alpha * factor * soft}

    def _between(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """D [N], for log-probabilities [N, V]."""
        beta = {"forward": 0.0, "reverse": 1.0}.get(self.divergence, self.beta)
        if self.divergence == "total_variation":
            return (log_p.exp() - log_q.exp()).abs().sum(dim=-1) / 2
        if self.divergence == "jensen_shannon" and 0 < beta < 1:
            log_m = torch.logaddexp(log_q + math.log(beta), log_p + math.log1p(-beta))
            return beta * _kl(log_q, log_m) + (1 - beta) * _kl(log_p, log_m)
        if beta in (0, 1):
            return _kl(log_p, log_q) if beta else _kl(log_q, log_p)
        return (1 - beta) * _kl(log_q, log_p) + beta * _kl(log_p, log_q)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a ‖ b) [N], for log-probabilities [N, V]."""
    return (log_a.exp() * (log_a - log_b)).sum(dim=-1)
