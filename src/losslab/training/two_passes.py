"""R-Drop in a training step: two passes of the model over one batch, and the distance of their predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from losslab.contracts import Features, LossSum, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.denominator import share_of_step, weighs_positions
from losslab.losses.r_drop import TERM, RDrop, check_r_drop


class TwoPasses:
    """½ (L₁ + L₂) + α ½ (KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)), as sums over positions. No module: the loss stays the network's.

    The second pass, its loss included, draws from the dropout stream after the first one, which draws what it would
    draw alone.

    Args:
        loss: bound.
        alpha: α, above 0.

    Raises:
        UserError: for a loss that predicts no probabilities.
    """

    def __init__(self, loss: Loss, alpha: float) -> None:
        check_r_drop(loss)
        self._loss = loss
        self._alpha = alpha
        self._weighs = weighs_positions(loss)
        self._step_share: Tensor | None = None

    @property
    def reads_step(self) -> bool:
        """Whether the mean over positions depends on the targets of the whole optimizer step."""
        return self._weighs

    def prepare_step(self, target: Tensor, weight: Tensor) -> None:
        """Receive target [N] and weight [N] of all positions of the next optimizer step."""
        if self._weighs:
            self._step_share = share_of_step(self._loss, target, weight)

    def run(self, features: Callable[[], Features], projection: Projection) -> LossSum:
        """The sums of a micro-batch, over the loss's own denominator.

        Args:
            features: runs the model once.

        Raises:
            UserError: where the passes select other positions.
        """
        first = features()
        one: LossSum = self._loss(first, projection)
        second = features()
        two: LossSum = self._loss(second, projection)
        if not torch.equal(first.target, second.target) or not torch.equal(first.weight, second.weight):
            raise UserError("trainer.r_drop: the task selects other positions in a second pass over the same batch")
        both = replace(first, hidden=torch.cat([first.hidden, second.hidden], dim=-1))
        apart: LossSum = RDrop(self._loss, self._alpha)(both, projection)
        penalty = self._share(one, apart) * apart.total
        terms = {name: (value + two.terms[name]) / 2 for name, value in one.terms.items()}
        return LossSum(
            total=(one.total + two.total) / 2 + penalty, weight=one.weight, terms={**terms, TERM: penalty.detach()}
        )

    def _share(self, own: LossSum, positions: LossSum) -> Tensor:
        """The factor of a sum over positions that is divided by the loss's denominator, so that it becomes a mean."""
        if self._weighs and self._step_share is not None:
            return self._step_share
        return own.weight / torch.where(positions.weight == 0, torch.ones_like(own.weight), positions.weight)


def check_random(backbone: nn.Module) -> None:
    """Refuse R-Drop for a model of losslab's in which nothing differs between two passes. Those of others are tried
    (`trial.model.draws`).

    Raises:
        UserError: naming the keys.
    """
    rates = (getattr(module, name, 0.0) for module in backbone.modules() for name in ("dropout", "drop_path"))
    if not any(isinstance(rate, float | int) and rate > 0 for rate in rates):
        raise UserError(
            "trainer.r_drop compares two passes with other dropout, and this model has none: give model.dropout=0.1, "
            "or leave out trainer.r_drop"
        )
