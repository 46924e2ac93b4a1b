"""R-Drop: the predictions of two passes with other dropout are drawn towards each other."""

from __future__ import annotations

import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import Features, Projection, TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss

TERM = "r_drop"
_CERTAIN = -1e-30
"""The largest log-probability of a label, so that 1 − p has a logarithm."""


class RDrop(Loss):
    """α ½ (KL(p ‖ q) + KL(q ‖ p)) of two predictions of each position (Liang et al. 2021, arXiv:2106.14448).

    p and q are what the loss predicts: `predict_log_probs` of its `scores`. Where targets are labels that do not
    exclude one another, the divergence is the sum over them. A position has `hidden` [2 D]: that of the first pass,
    then that of the second; the gradient goes through both.

    Args:
        loss: bound; it stays the owner of its parameters.
        alpha: α, above 0.
    """

    def __init__(self, loss: Loss, alpha: float) -> None:
        super().__init__()
        self.loss = loss
        self.alpha = alpha
        self.target_kind = loss.target_kind
        self.exact_products = loss.exact_products

    def num_classes(self, num_outputs: int) -> int:
        return self.loss.num_classes(num_outputs)

    def select(self, features: Features) -> Features:
        return self.loss.select(features)

    def values(self, features: Features, projection: Projection) -> Tensor:
        log_p, log_q = (self._log_probs(hidden, projection) for hidden in features.hidden.chunk(2, dim=-1))
        difference = log_p.exp() - log_q.exp()
        apart = log_p - log_q
        if self.target_kind is TargetKind.LABELS:
            apart = apart - (_log_rest(log_p) - _log_rest(log_q))
        return self.alpha / 2 * (difference * apart).sum(dim=-1)

    def _log_probs(self, hidden: Tensor, projection: Projection) -> Tensor:
        log_probs = self.loss.predict_log_probs(self.loss.scores(hidden, projection))
        if torch.is_grad_enabled() and not log_probs.requires_grad:
            raise UserError(
                f"trainer.r_drop: {type(self.loss).__name__}.predict_log_probs gives no gradient, through which two "
                "predictions could be drawn together: leave it out, or declare agrees = False"
            )
        return log_probs


def _log_rest(log_p: Tensor) -> Tensor:
    """log(1 − p)."""
    return (-log_p.clamp(max=_CERTAIN).expm1()).log()


def check_r_drop(loss: Loss) -> None:
    """Raises UserError for a loss whose predictions cannot be drawn together."""
    name = chosen("loss", loss)
    if loss.target_kind in (TargetKind.VALUES, TargetKind.SEQUENCES):
        predicts = loss.target_kind.value
        raise UserError(
            f"trainer.r_drop compares predicted probabilities, and {name} predicts {predicts}: leave it out"
        )
    if not loss.agrees:
        raise UserError(
            f"trainer.r_drop needs probabilities that are above 0 and that training alone decides, and those of "
            f"{name} are not: leave it out, or choose another loss"
        )
    if TERM in loss.terms:
        raise UserError(f"the loss has a term named {TERM} itself: leave out trainer.r_drop, or rename the term")
