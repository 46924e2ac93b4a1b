"""Weights of the classes by their effective number of samples, around any loss of classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import Features, OutputSpec, TargetKind, Values
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.regularizers import check_backend
from losslab.losses.softmax_stats import SoftmaxStats

_OF_STATISTICS = ("from_log_prob", "from_statistics")
_OF_LOGITS = ("position_loss", "from_logits")


class ClassBalanced(Loss):
    """Class-balanced weights: another loss, in which each class counts by its effective number of samples.

    Formula:
        ℓ = w_y ℓ'(z, y), divided by Σ w_y, for another loss ℓ'; w_j ∝ (1 − β) / (1 − β^n_j), n_j the class's count in
        train and at least 1, and Σ_j w_j = V.
    Gradient:
        w_y times that of ℓ'.
    Source:
        Cui et al. 2019, arXiv:1901.05555.
    Use:
        For long tails: loss=class_balanced is of cross_entropy, loss=class_balanced loss@loss.inner=focal of focal. β
        is 0.9 to 0.9999; near 1 the weights are those of the inverse frequency, at 0 they are equal.
    Weakness:
        Its nll is worse by design, for frequent classes are frequent; a few samples of a rare class, wrong ones among
        them, weigh as much as many of another. The paper divides by the number of samples, which is another step size.
    Prediction:
        That of ℓ'.
    Posterior:
        η_j ∝ η'_j / w_j, η' being that of ℓ'; none where ℓ' has none.

    Args:
        inner: ℓ', a loss of classes.
        beta: β, 0 or above and below 1.
    Raises:
        UserError: for a β outside this range, and for a loss that cannot be weighed: one of other targets, with
            products of its own, or with a teacher.
    """

    per_class = True

    def __init__(self, *, inner: Loss, beta: float = 0.999) -> None:
        super().__init__()
        if not 0 <= beta < 1:
            raise UserError(f"loss.beta must be in [0, 1), not {beta}")
        if not isinstance(inner, Loss):
            raise UserError(f"loss.inner must be a loss (loss@loss.inner=focal), not {inner!r}")
        _check_inner(inner)
        self.inner = inner
        self.beta = beta
        self._way = "from_statistics" if inner.written_as() in _OF_STATISTICS else "from_logits"
        self.agrees = inner.agrees
        for name in ("position_wise", "has_detached", "shift_invariant", "temperature", "terms", "cost_class"):
            setattr(self, name, getattr(inner, name))
        self.needs = dict(inner.needs)
        self.is_proper = inner.is_proper and beta == 0
        self.class_weight: Tensor  # [V]
        self.register_buffer("class_weight", torch.ones(1))

    def bind(self, spec: OutputSpec) -> None:
        """Take the weights from the counts; without any they are left to the checkpoint that is about to be read."""
        self.inner.bind(spec)
        weight = torch.ones(spec.num_classes, dtype=torch.float64)
        if spec.class_counts is not None:
            counts = spec.class_counts.double().cpu().clamp(min=1)
            weight = (1 - self.beta) / (1 - self.beta**counts)
        self.class_weight = (len(weight) * weight / weight.sum()).float()

    def num_outputs(self, size: int) -> int:
        return self.inner.num_outputs(size)

    def num_classes(self, num_outputs: int) -> int:
        return self.inner.num_classes(num_outputs)

    def begin_step(self, step: int, max_steps: int) -> None:
        self.inner.begin_step(step, max_steps)

    def written_as(self) -> str:
        return self._way

    def linear_weights(self, num_outputs: int) -> Tensor | None:
        return self.inner.linear_weights(num_outputs)

    def from_statistics(self, statistics: SoftmaxStats) -> Values:
        return self._weighed(self.inner.from_statistics(statistics), statistics.target)

    def from_logits(self, logits: Tensor, features: Features) -> Values:
        return self._weighed(self.inner.from_logits(logits, features), features.target)

    def _weighed(self, values: Values, target: Tensor) -> Values:
        if isinstance(values, Mapping):
            return {name: self.class_weight[target].to(value.dtype) * value for name, value in values.items()}
        return self.class_weight[target].to(values.dtype) * values

    def position_weight(self, features: Features) -> Tensor:
        own, inner = self.class_weight[features.target], self.inner.position_weight(features)
        return own if inner is None else own * inner

    def select(self, features: Features) -> Features:
        return self.inner.select(features)

    def map_logits(self, logits: Tensor) -> Tensor:
        return self.inner.map_logits(logits)

    def calibrate(self, scale: float) -> None:
        self.inner.calibrate(scale)

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return self.inner.predict_log_probs(logits)

    def predicts_softmax(self) -> bool:
        return self.inner.predicts_softmax()

    def softmax_factor(self) -> float | None:
        return self.inner.softmax_factor()

    def posterior(self, logits: Tensor) -> Tensor | None:
        inner = self.inner.posterior(logits)
        if inner is None:
            return None
        eta = inner / self.class_weight.to(inner.dtype)
        return eta / eta.sum(dim=-1, keepdim=True)


def _check_inner(inner: Loss) -> None:
    kind = type(inner)
    check_backend(inner)
    if inner.target_kind is not TargetKind.CLASSES:
        raise UserError(
            f"{chosen('loss.inner', kind)} needs {inner.target_kind.value} as targets, and class_balanced weighs "
            "classes"
        )
    of_logits = kind.adapt is Loss.adapt and inner.written_as() in _OF_STATISTICS + _OF_LOGITS
    if not of_logits or inner.trains_otherwise or inner.reads_teacher:
        what = "a teacher" if inner.reads_teacher else "products of its own"
        raise UserError(f"{chosen('loss.inner', kind)} has {what}: class_balanced weighs losses of logits alone")
    if isinstance(inner, ClassBalanced):
        raise UserError("loss.inner=class_balanced weighs twice; leave one out")
