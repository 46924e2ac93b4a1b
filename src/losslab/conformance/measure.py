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

from losslab.config.components import build
from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap
from losslab.training.memory import keep_freed_memory, peak_memory_mib, reset_peak_memory
from losslab.types import Features, OutputSpec, added

FLOOR, DENSE = "the three matrix products", "F.linear and F.cross_entropy"
_REPEATS = 2


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
        node: a loss's configuration, or None for the two yardsticks, which `label` names.
        dense: all of the loss's logits at once, by autograd, in place of its own execution.
    """

    label: str
    node: dict[str, Any] | None = field(default=None, hash=False)
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
    weight = (torch.randn(shape.num_outputs, shape.width, generator=generator) / shape.width**0.5).requires_grad_()
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
    if variant.label == FLOOR and variant.node is None:
        return lambda: _products(hidden, weight)
    if variant.node is None:
        return lambda: F.cross_entropy(F.linear(hidden, weight), target, reduction="sum").backward()  # type: ignore[no-untyped-call]
    loss: Loss = build(variant.node, "loss")
    generator = torch.Generator().manual_seed(1)
    loss.bind(OutputSpec(num_outputs=len(weight), hidden_size=weight.shape[1], generator=generator))
    features = Features(hidden, target, torch.ones(len(target)))
    if variant.dense:
        return lambda: added(loss.values(features, LinearMap(weight, None))).sum().backward()  # type: ignore[no-untyped-call]
    return lambda: loss(features, LinearMap(weight, None)).total.backward()


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
