"""One row for each variant of each loss in conf/loss, with a reference written from the formula, not from the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.square import Square

NUM_OUTPUTS = 7
# Powers of two and short fractions: the same number in float32 and float64.
CLASS_WEIGHTS = [0.5, 1.0, 2.0, 0.25, 1.5, 3.0, 1.0]

Reference = Callable[[Tensor, Tensor], Tensor]


def _softmax(logits: Tensor) -> Tensor:
    exponentials = logits.exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def _one_hot(logits: Tensor, target: Tensor) -> Tensor:
    return (torch.arange(logits.shape[-1]) == target[:, None]).to(logits.dtype)


def cross_entropy(*, smoothing: float = 0.0, temperature: float = 1.0, weights: list[float] | None = None) -> Reference:
    """(1 − ε) w_y (−log p_y) + (ε / V) Σ_j w_j (−log p_j), p = softmax(z / T)."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        num_outputs = logits.shape[-1]
        w = torch.ones(num_outputs) if weights is None else torch.tensor(weights)
        costs = -w.to(logits.dtype) * _softmax(logits / temperature).log()
        own = (_one_hot(logits, target) * costs).sum(dim=-1)
        return (1 - smoothing) * own + smoothing / num_outputs * costs.sum(dim=-1)

    return reference


def kl_divergence(*, smoothing: float) -> Reference:
    """Σ_j q_j log(q_j / p_j) with 0 log 0 = 0."""

    def reference(logits: Tensor, target: Tensor) -> Tensor:
        q = (1 - smoothing) * _one_hot(logits, target) + smoothing / logits.shape[-1]
        return (torch.xlogy(q, q) - q * _softmax(logits).log()).sum(dim=-1)

    return reference


def square(*, k: float, m: float) -> Reference:
    """(1 / V) [k (f_y − M)² + Σ_{j≠y} f_j²]."""

    def reference(scores: Tensor, target: Tensor) -> Tensor:
        is_target = _one_hot(scores, target)
        return ((1 + (k - 1) * is_target) * (scores - m * is_target) ** 2).sum(dim=-1) / scores.shape[-1]

    return reference


@dataclass(frozen=True)
class Case:
    """A variant of a loss.

    Args:
        name: of the yaml in conf/loss.
        variant: tells apart the cases of one name.
        reference: logits, target → the loss of each position, in the precision of the logits.
        class_weights: each position's share in the denominator, by class.
        is_softmax: adding a constant to all logits of a row changes nothing.
    """

    name: str
    variant: str
    loss: type[Loss]
    reference: Reference
    kwargs: dict[str, Any] = field(default_factory=dict)
    class_weights: list[float] | None = None
    is_softmax: bool = True

    def make(self) -> Loss:
        return self.loss(**self.kwargs)

    def share(self, target: Tensor) -> Tensor:
        return torch.tensor(self.class_weights or [1.0] * NUM_OUTPUTS, dtype=torch.float64)[target]

    def __str__(self) -> str:
        return f"{self.name}-{self.variant}"


def _cross_entropy_case(
    variant: str, *, smoothing: float = 0.0, temperature: float = 1.0, weights: list[float] | None = None
) -> Case:
    kwargs = {"label_smoothing": smoothing, "temperature": temperature, "class_weights": weights}
    reference = cross_entropy(smoothing=smoothing, temperature=temperature, weights=weights)
    return Case("cross_entropy", variant, CrossEntropy, reference, kwargs, class_weights=weights)


CASES = [
    Case("cross_entropy", "defaults", CrossEntropy, cross_entropy()),
    _cross_entropy_case("smoothed", smoothing=0.1),
    _cross_entropy_case("temperature", temperature=2.0),
    _cross_entropy_case("weighted", weights=CLASS_WEIGHTS),
    _cross_entropy_case("all options", smoothing=0.1, temperature=2.0, weights=CLASS_WEIGHTS),
    Case("kl_divergence", "defaults", KLDivergence, kl_divergence(smoothing=0.1)),
    Case("kl_divergence", "hard targets", KLDivergence, kl_divergence(smoothing=0.0), {"label_smoothing": 0.0}),
    Case("kl_divergence", "very smooth", KLDivergence, kl_divergence(smoothing=0.75), {"label_smoothing": 0.75}),
    Case("square", "defaults", Square, square(k=15.0, m=30.0), is_softmax=False),
    Case("square", "few classes", Square, square(k=1.0, m=1.0), {"k": 1.0, "m": 1.0}, is_softmax=False),
    Case("square", "wide target", Square, square(k=1.0, m=15.0), {"k": 1.0, "m": 15.0}, is_softmax=False),
]
