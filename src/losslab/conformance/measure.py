"""Time and memory of a loss, forward and backward, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap
from losslab.training.assemble import build_loss
from losslab.training.memory import keep_freed_memory, peak_memory_mib, reset_peak_memory
from losslab.types import Features, OutputSpec, TargetKind, added

FLOOR, DENSE = "the three matrix products", "F.linear and F.cross_entropy"
_REPEATS = 2
_CONTEXT = 128


@dataclass(frozen=True)
class Shape:
    """N positions of width D, V outputs."""

    positions: int
    width: int
    num_outputs: int
    threads: int


@dataclass(frozen=True)
class Variant:
    """What is measured.

    Args:
        label: for people.
        config: that of a run with the loss, or None for the two yardsticks, which `label` names.
        dense: all of the loss's logits at once, by autograd, in place of its own execution.
    """

    label: str
    config: dict[str, Any] | None = field(default=None, hash=False)
    dense: bool = False


@dataclass(frozen=True)
class Measurement:
    seconds: float
    mib: float
    """Peak, beyond the inputs and the gradient in the weight."""


def measure(variant: Variant, shape: Shape, answer: Connection) -> None:
    """Send a `Measurement`: the quickest of some repeats, and the peak of the first."""
    torch.set_num_threads(shape.threads)
    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(shape.positions, shape.width, generator=generator).requires_grad_()
    # In place: a freed copy would lie ready for what is measured, which would seem to need less.
    weight = torch.randn(shape.num_outputs, shape.width, generator=generator).div_(shape.width**0.5).requires_grad_()
    target = torch.randint(shape.num_outputs, (shape.positions,), generator=generator)
    work = _work(variant, hidden, weight, target)
    torch.mm(hidden[:64].detach(), weight[:64].detach().T)  # the pool of threads exists from here on
    device = hidden.device
    reset_peak_memory()
    before = peak_memory_mib(device)
    seconds = []
    peak = 0.0
    for i in range(1 + _REPEATS):
        hidden.grad = weight.grad = None
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
        if i == 0:
            peak = peak_memory_mib(device) - before - weight.numel() * weight.element_size() / 2**20
    answer.send(Measurement(seconds=min(seconds), mib=max(0.0, peak)))


def _work(variant: Variant, hidden: Tensor, weight: Tensor, target: Tensor) -> Callable[[], None]:
    if variant.label == FLOOR and variant.config is None:
        return lambda: _products(hidden, weight)
    if variant.config is None:
        return lambda: F.cross_entropy(F.linear(hidden, weight), target, reduction="sum").backward()  # type: ignore[no-untyped-call]
    loss = build_loss(variant.config)
    loss.bind(_sizes(weight))
    features = _features(loss, hidden, target, len(weight))
    if variant.dense:
        return lambda: _dense(loss, features, LinearMap(weight, None)).backward()  # type: ignore[no-untyped-call]
    return lambda: loss(features, LinearMap(weight, None)).total.backward()


def _sizes(weight: Tensor) -> OutputSpec:
    num_outputs, width = weight.shape
    counts = torch.ones(num_outputs, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    return OutputSpec(num_outputs=num_outputs, hidden_size=width, generator=generator, class_counts=counts)


def _features(loss: Loss, hidden: Tensor, target: Tensor, num_outputs: int) -> Features:
    """With whatever the loss reads: random tokens before each target, a teacher as wide as the network."""
    generator = torch.Generator().manual_seed(2)
    extras = {}
    if loss.previous_tokens:
        columns = min(loss.previous_tokens, _CONTEXT)
        extras["previous"] = torch.randint(num_outputs, (len(target), columns), generator=generator)
    if loss.reads_teacher:
        taught = torch.randn(num_outputs, hidden.shape[1], generator=generator).div_(hidden.shape[1] ** 0.5)
        loss.teach(lambda states: (states @ taught.T).log_softmax(dim=-1))
        extras["teacher_hidden"] = torch.randn(hidden.shape, generator=generator)
    if loss.target_kind is not TargetKind.CLASSES:
        target = torch.zeros(len(target), num_outputs).scatter_(-1, target[:, None], 1.0)
    return Features(hidden, target, torch.ones(len(target)), extras)


def _dense(loss: Loss, features: Features, projection: LinearMap) -> Tensor:
    features = loss.select(features).kept()
    return (features.weight * added(loss.values(features, projection))).sum()


@torch.no_grad()
def _products(hidden: Tensor, weight: Tensor) -> None:
    """Logits, and both gradients: no head that multiplies by all of the weight does less."""
    rows = 256
    total = torch.zeros_like(weight)
    for i in range(0, len(hidden), rows):
        piece = hidden[i : i + rows]
        logits = piece @ weight.T
        logits @ weight
        total.addmm_(logits.T, piece)
