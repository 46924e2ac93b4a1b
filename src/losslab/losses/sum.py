"""A weighted sum of losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from losslab.choices import chosen
from losslab.contracts import Features, OutputSpec, TargetKind, added
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.regularizers import check_backend

_SOME = 10
"""A number of classes."""


class Sum(Loss):
    """Weighted sum: several losses of the same logits, each logged apart.

    Formula:
        ℓ = Σ_i a_i ℓ_i(z, y).
    Gradient:
        The same sum of the gradients.
    Source:
        None; a way to write one.
    Use:
        For mixtures that have no name yet: loss=sum loss@loss.first=focal loss@loss.second=brier
        loss.weights.second=0.5; +loss@loss.third=hinge adds one. TensorBoard shows each as train/objective/NAME.
    Weakness:
        The weights are one more thing to tune, with a budget that the other losses should have too.
    Prediction:
        That of the first loss.
    Posterior:
        None in closed form.

    Args:
        weights: a_i, above 0, by the names of the losses; those left out are 1.
        losses: two or more, by name, for one kind of targets.
    Raises:
        UserError: for weights out of range or of no loss, and for losses that cannot share logits: those with products
            of their own, positions of their own, a denominator of their own, or a teacher.
    """

    def __init__(self, *, weights: dict[str, float] | None = None, **losses: Loss) -> None:
        super().__init__()
        if len(losses) < 2:
            raise UserError("loss=sum needs two losses or more: loss@loss.first=… loss@loss.second=…")
        for name, loss in losses.items():
            if not isinstance(loss, Loss):
                raise UserError(f"loss.{name} must be a loss (loss@loss.{name}=…), not {loss!r}")
            _check_term(name, loss)
        given = dict(weights or {})
        if unknown := sorted(given.keys() - losses.keys()):
            raise UserError(f"loss.weights.{unknown[0]} weighs no loss: they are {', '.join(losses)}")
        for name, weight in given.items():
            if not 0 < weight < math.inf:
                raise UserError(f"loss.weights.{name} must be above 0 and finite, not {weight}")
        self.weights = {name: float(given.get(name, 1.0)) for name in losses}
        self.losses = nn.ModuleList(losses.values())
        self._all = list(losses.values())
        kinds = {loss.target_kind for loss in self._all}
        if len(kinds) > 1:
            raise UserError(f"the losses of a sum must want the same targets, not {sorted(k.value for k in kinds)}")
        self.target_kind = kinds.pop()
        self.terms = tuple(losses)
        self.levels = self._all[0].levels
        self.needs = {
            name: max(loss.needs.get(name, 0) for loss in self._all)
            for name in {n for loss in self._all for n in loss.needs}
        }
        self.agrees = self._all[0].agrees
        self.position_wise = all(loss.position_wise for loss in self._all)
        self.per_class = any(loss.per_class for loss in self._all)
        self.shift_invariant = all(loss.shift_invariant for loss in self._all)
        self.has_detached = any(loss.has_detached for loss in self._all)

    def bind(self, spec: OutputSpec) -> None:
        for loss in self._all:
            loss.bind(spec)

    def begin_step(self, step: int, max_steps: int) -> None:
        for loss in self._all:
            loss.begin_step(step, max_steps)

    def num_outputs(self, size: int) -> int:
        counts = {loss.num_outputs(size) for loss in self._all}
        if len(counts) > 1:
            raise UserError(f"the losses of a sum must want the same number of outputs, not {sorted(counts)}")
        return counts.pop()

    def from_logits(self, logits: Tensor, features: Features) -> dict[str, Tensor]:
        return {
            name: self.weights[name] * added(loss.from_logits(loss.map_logits(logits), features))
            for name, loss in zip(self.terms, self._all, strict=True)
        }

    def calibrate(self, scale: float) -> None:
        for loss in self._all:
            loss.calibrate(scale)

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        first = self._all[0]
        return first.predict_log_probs(first.map_logits(logits))

    def softmax_factor(self) -> float | None:
        first = self._all[0]
        return first.softmax_factor() if type(first).map_logits is Loss.map_logits else None

    def predict_values(self, logits: Tensor) -> Tensor:
        return self._all[0].predict_values(self._all[0].map_logits(logits))

    def log_density(self, logits: Tensor, target: Tensor) -> Tensor | None:
        return self._all[0].log_density(self._all[0].map_logits(logits), target)

    def predict_quantiles(self, logits: Tensor, levels: Sequence[float]) -> Tensor | None:
        return self._all[0].predict_quantiles(self._all[0].map_logits(logits), levels)


def _check_term(name: str, loss: Loss) -> None:
    kind = type(loss)
    check_backend(loss)
    if kind.adapt is not Loss.adapt or loss.trains_otherwise or loss.written_as() == "values" or loss.reads_teacher:
        what = "a teacher" if loss.reads_teacher else "products of its own"
        raise UserError(f"{chosen(f'loss.{name}', kind)} has {what}, and the terms of a sum share their logits")
    if loss.target_kind is not TargetKind.VALUES and loss.num_outputs(_SOME) != _SOME:
        raise UserError(f"{chosen(f'loss.{name}', kind)} has outputs of its own, and the terms of a sum share theirs")
    target = torch.zeros(1, 1) if loss.target_kind is TargetKind.VALUES else torch.zeros(1, dtype=torch.int64)
    extras = {each: torch.zeros(1, size, dtype=torch.int32) for each, size in loss.needs.items()}
    position = Features(torch.zeros(1, 1), target, torch.ones(1), extras)
    if loss.select(position) is not position:
        raise UserError(f"{chosen(f'loss.{name}', kind)} ignores positions of its own, which a sum's terms cannot")
    if loss.position_weight(position) is not None:
        raise UserError(f"loss.{name} divides by weights of its own (class_weights), which a sum's terms cannot")
