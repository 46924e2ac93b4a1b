"""A loss on trial: bound to a small problem, fresh for each check."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, OutputSpec, TargetKind
from losslab.errors import Fault, UserError
from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap

WIDTH, POSITIONS = 6, 37
SIZES = {
    TargetKind.CLASSES: 11,
    TargetKind.DISTRIBUTIONS: 11,
    TargetKind.LABELS: 11,
    TargetKind.VALUES: 2,
    TargetKind.SEQUENCES: 11,
}
"""Classes, or values a position."""
_FLOAT32 = 1e-5
_REACH = 16
_MOST_CLASSES = 65
_TEACHER_WIDTH = 4
_LENGTHS = (4, 3, 6, 1, 5)
"""Hidden states of sequences, in turns; the last one has what is left."""


@dataclass(frozen=True)
class Problem:
    """Positions with targets of the loss's kind and ragged weights (0, ½, 1, 2), and a projection; float64."""

    features: Features
    projection: Tensor
    """[V, D]."""

    @classmethod
    def random(cls, loss: Loss, seed: int = 0, positions: int = POSITIONS, size: int | None = None) -> Problem:
        """A loss that reads tokens before or after, or a teacher, finds them in the extras."""
        generator = torch.Generator().manual_seed(seed)
        size = size or SIZES[loss.target_kind]
        hidden = torch.randn(positions, WIDTH, dtype=torch.float64, generator=generator)
        lengths = _lengths(positions) if loss.target_kind is TargetKind.SEQUENCES else None
        target = _targets(loss.target_kind, positions, size, generator, lengths)
        count = len(target)
        projection = torch.randn(loss.num_outputs(size), WIDTH, dtype=torch.float64, generator=generator)
        extras = {}
        for name in [name for name in ("previous", "next") if loss.needs.get(name)]:
            reach = min(loss.needs[name], _REACH)
            tokens = torch.randint(size, (count, reach), generator=generator)
            known = torch.randint(2 * reach + 1, (count, 1), generator=generator)  # of half of them, all
            extras[name] = tokens.masked_fill(torch.arange(reach) >= known, -1)
        if loss.reads_teacher:
            extras["teacher_hidden"] = torch.randn(count, _TEACHER_WIDTH, dtype=torch.float64, generator=generator)
        weight = torch.tensor([0.0, 0.5, 1.0, 1.0, 2.0, 0.0, 1.0])[torch.arange(count) % 7].double()
        return cls(Features(hidden, target, weight, extras, lengths), projection)

    @property
    def logits(self) -> Tensor:
        """float64 [N, V]."""
        return self.features.hidden @ self.projection.T


def single(features: Features) -> Features:
    """The same in float32."""

    def cast(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() else tensor

    return replace(
        features,
        hidden=cast(features.hidden),
        target=cast(features.target),
        weight=cast(features.weight),
        extras={name: cast(value) for name, value in features.extras.items()},
    )


def _lengths(positions: int) -> Tensor:
    """int64 [S], whose sum is `positions`."""
    found: list[int] = []
    while (left := positions - sum(found)) > 0:
        found.append(min(left, _LENGTHS[len(found) % len(_LENGTHS)]))
    return torch.tensor(found, dtype=torch.int64)


def _targets(
    kind: TargetKind, positions: int, size: int, generator: torch.Generator, lengths: Tensor | None = None
) -> Tensor:
    if lengths is not None:  # half as many classes as hidden states, so that equal neighbours find room, too
        classes = torch.randint(size, (len(lengths), int(lengths.max() + 1) // 2), generator=generator)
        return classes.masked_fill(torch.arange(classes.shape[1]) >= ((lengths + 1) // 2)[:, None], -1)
    if kind is TargetKind.CLASSES:
        return torch.randint(size, (positions,), generator=generator)
    if kind is TargetKind.VALUES:
        return torch.randn(positions, size, dtype=torch.float64, generator=generator)
    shares = torch.rand(positions, size, dtype=torch.float64, generator=generator)
    return shares / shares.sum(dim=-1, keepdim=True) if kind is TargetKind.DISTRIBUTIONS else shares.round()


@dataclass(frozen=True)
class Outcome:
    """A loss's sums and its gradients in hidden states and projection."""

    total: Tensor
    weight: Tensor
    hidden: Tensor
    projection: Tensor


class Subject:
    """Makes equal copies of one loss.

    Args:
        loss: not bound yet.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        usual = SIZES[loss.target_kind]
        # A loss with a setting for each class, such as class weights, is for one number of classes.
        self.size = next((size for size in (usual, *range(2, _MOST_CLASSES)) if self.takes(size)), usual)

    def takes(self, size: int) -> bool:
        """Whether the loss is one for `size` classes, or values a position."""
        try:
            self.fresh(size)
        except UserError:
            return False
        return True

    def problem(self, seed: int = 0, positions: int = POSITIONS) -> Problem:
        return Problem.random(self.loss, seed, positions, self.size)

    def fresh(self, size: int | None = None, width: int = WIDTH) -> Loss:
        """A copy for `size` classes, or values a position."""
        loss = copy.deepcopy(self.loss)
        size = size or self.size
        generator = torch.Generator().manual_seed(7)
        counts = 1 + torch.arange(size, dtype=torch.float64)
        loss.bind(
            OutputSpec(
                num_outputs=loss.num_outputs(size),
                hidden_size=width,
                generator=generator,
                class_counts=counts,
                size=size,
            )
        )
        if loss.reads_teacher:
            loss.teach(_teach(torch.randn(size, _TEACHER_WIDTH, generator=generator)))
        if loss.draws:
            loss.draw(torch.Generator().manual_seed(13))
        return loss

    def run(self, features: Features, projection: Tensor, *, step: Features | None = None) -> Outcome:
        """Forward and backward, of a fresh copy, in float32.

        Args:
            step: all positions of the optimizer step that `features` are a part of; default: `features`.
        """
        features = single(features)
        hidden = features.hidden.detach().clone().requires_grad_()
        weight = projection.detach().to(torch.float32).clone().requires_grad_()
        loss = self.fresh(width=weight.shape[1])
        if step is not None and loss.reads_step:
            step = single(step)
            loss.prepare_step(step.target, step.weight)
        result = loss(replace(features, hidden=hidden), LinearMap(weight, None))
        _refuse_other_than_sums(result)
        if not result.total.requires_grad:
            raise Fault("the total has no gradient: it is computed from detached values, or without the projection")
        of_hidden, of_weight = torch.autograd.grad(result.total, [hidden, weight], allow_unused=True)
        if of_hidden is None or of_weight is None:
            raise Fault("the total does not depend on hidden states and projection: something on the way is detached")
        return Outcome(result.total.detach(), result.weight.detach(), of_hidden, of_weight)


def _teach(projection: Tensor) -> Callable[[Tensor], Tensor]:
    def log_probs(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return (hidden @ projection.to(hidden).T).log_softmax(dim=-1)

    return log_probs


def near(actual: Tensor, expected: Tensor | int) -> bool:
    """Equal but for the rounding of float32 sums of a few dozen terms, in any order."""
    expected = torch.as_tensor(expected)
    return bool((actual - expected).norm() <= _FLOAT32 * expected.norm().clamp(min=1e-3))


def _refuse_other_than_sums(result: object) -> None:
    if not isinstance(result, LossSum):
        raise Fault(f"forward returned a {type(result).__name__}, not LossSum(total, weight)")
    for name, value in (("total", result.total), ("weight", result.weight)):
        if value.shape != () or value.dtype != torch.float32:
            raise Fault(f"{name} must be a float32 scalar, not {value.dtype} of shape {list(value.shape)}")
