"""Multi-class hinge."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss


class Hinge(Loss):
    """Multi-class hinge: the target's score must exceed the largest other one by a margin.

    Formula:
        ℓ = [m + max_{j≠y} f_j − f_y]₊ of raw scores f, or its square.
    Gradient:
        Where ℓ > 0, with r the largest other class: ∂ℓ/∂f_r = 1, ∂ℓ/∂f_y = −1 and 0 for the rest; squared, times 2
        [m + f_r − f_y]₊. Where ℓ = 0: 0.
    Source:
        Crammer & Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector machines".
    Use:
        Where only the first place matters, and positions that are right by a margin should be left alone.
    Weakness:
        Not calibrated: the scores are no log-probabilities, and no link makes them so; where no class has more than
        half of the probability, its minimiser need not even rank them right. Of all rivals it pushes down only the
        largest.
    Prediction:
        softmax(s · f), with the scale s that nll_scaled fits on half of the validation set (1 before the first fit).
    Posterior:
        None: the minimiser does not determine the probabilities.

    Args:
        margin: m, above 0.
        squared: a smooth loss, that punishes large violations more.
    Raises:
        UserError: for a margin outside this range.
    """

    cost_class = "F4"
    shift_invariant = True
    agrees = False

    def __init__(self, *, margin: float = 1.0, squared: bool = False) -> None:
        super().__init__()
        if not 0 < margin < math.inf:
            raise UserError(f"loss.margin must be above 0 and finite, not {margin}")
        self.margin = margin
        self.squared = squared
        self.prediction_scale: Tensor
        self.register_buffer("prediction_scale", torch.ones(()))

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        f_y = logits.gather(-1, target[:, None])[:, 0]
        rival = logits.scatter(-1, target[:, None], -math.inf).amax(dim=-1)
        violation = (self.margin + rival - f_y).clamp(min=0)
        return violation.square() if self.squared else violation

    def calibrate(self, scale: float) -> None:
        self.prediction_scale.fill_(scale)

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return (self.prediction_scale * logits).log_softmax(dim=-1)

    def softmax_factor(self) -> float | None:
        own = type(self).predict_log_probs is Hinge.predict_log_probs
        return self.prediction_scale.item() if own else super().softmax_factor()
