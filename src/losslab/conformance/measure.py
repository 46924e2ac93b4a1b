"""Time and memory of a loss, forward and backward, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features, OutputSpec, TargetKind, added
from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap, projection_rows
from losslab.products import is_quicker, times_transposed
from losslab.training.factory import build_loss
from losslab.training.output.memory import keep_freed_memory, peak_memory_mib, reset_peak_memory

FLOOR, DENSE = "the three matrix products", "F.linear and F.cross_entropy"
AT_ONCE = "the same of all positions at once"
COMPILED = "the same under torch.compile"
_REPEATS = 2
_DTYPES = {"32": torch.float32, "64": torch.float64, "16": torch.float16, "bf16": torch.bfloat16}
_CONTEXT = 128


@dataclass(frozen=True)
class Shape:
    """N positions of width D, V outputs; where, and in which of Lightning's precisions."""

    positions: int
    width: int
    num_outputs: int
    threads: int
    device: str = "cpu"
    precision: str = "32-true"

    @property
    def dtype(self) -> torch.dtype:
        """The precision of weights and hidden states."""
        bits, _, mode = self.precision.partition("-")
        return _DTYPES[bits] if mode == "true" else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """Around each forward pass, as Lightning has it."""
        bits, _, mode = self.precision.partition("-")
        return torch.autocast(self.device, dtype=_DTYPES[bits]) if mode == "mixed" else nullcontext()


@dataclass(frozen=True)
class Variant:
    """One thing to measure.

    Args:
        label: for people.
        config: that of a run with the loss, or None for the metrics, which `label` names.
        dense: all of the loss's logits at once, by autograd, instead of its own execution.
    """

    label: str
    config: dict[str, Any] | None = field(default=None, hash=False)
    dense: bool = False


@dataclass(frozen=True)
class Measurement:
    seconds: float
    mib: float
    """Peak, beyond the inputs and the gradient in the weight."""
    note: str = ""
    """The reason why something else was measured than was asked for."""


@dataclass(frozen=True)
class Work:
    """The function that is timed, and its inputs."""

    forward: Callable[[], Tensor | None]
    """The total, to be differentiated; None where everything is done."""
    hidden: Tensor
    weight: Tensor
    loss: Loss | None

    def run(self, shape: Shape) -> float:
        """Seconds of one forward and backward pass."""
        self.hidden.grad = self.weight.grad = None
        return _run(self.forward, shape)


def make_work(variant: Variant, shape: Shape) -> Work:
    """Draw hidden states, weights and targets, and bind the loss."""
    device = torch.device(shape.device)
    generator = torch.Generator(device).manual_seed(0)
    like: dict[str, Any] = {"device": device, "dtype": shape.dtype, "generator": generator}
    hidden = torch.randn(shape.positions, shape.width, **like).requires_grad_()
    # In place: a freed copy would lie ready for what is measured, which would seem to need less.
    built = None if variant.config is None else build_loss(variant.config)
    rows = shape.num_outputs if built is None else built.num_outputs(shape.num_outputs)
    weight = torch.randn(rows, shape.width, **like).div_(shape.width**0.5).requires_grad_()
    target = torch.randint(shape.num_outputs, (shape.positions,), device=device, generator=generator)
    loss = None if built is None else _bound(built, weight, shape.num_outputs)
    return Work(_work(variant, loss, hidden, weight, target), hidden, weight, loss)


def measure(variant: Variant, shape: Shape, answer: Connection) -> None:
    """Send a `Measurement`: the quickest of some repeats, and the peak of the first."""
    torch.set_num_threads(shape.threads)
    keep_freed_memory()
    device = torch.device(shape.device)
    work = make_work(variant, shape)
    weight = work.weight
    torch.mm(work.hidden[:64].detach(), weight[:64].detach().T)  # the pool of threads exists from here on
    if variant == Variant(COMPILED):
        work.run(shape)
    work.hidden.grad = weight.grad = None
    reset_peak_memory()
    before = peak_memory_mib(device)
    seconds = []
    peak = 0.0
    for i in range(1 + _REPEATS):
        seconds.append(work.run(shape))
        if i == 0:
            peak = peak_memory_mib(device) - before - weight.numel() * weight.element_size() / 2**20
    answer.send(Measurement(min(seconds), max(0.0, peak), note=getattr(work.loss, "fallback", "")))


def _run(work: Callable[[], Tensor | None], shape: Shape) -> float:
    """Seconds of one forward and backward pass."""
    started = time.perf_counter()
    with shape.autocast():
        total = work()
    if total is not None:
        total.backward()  # type: ignore[no-untyped-call]
    if shape.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _work(
    variant: Variant, loss: Loss | None, hidden: Tensor, weight: Tensor, target: Tensor
) -> Callable[[], Tensor | None]:
    if loss is None:
        if variant.label in (FLOOR, AT_ONCE):
            rows = projection_rows(len(weight), hidden.device) if variant.label == FLOOR else len(hidden)
            return lambda: _products(hidden, weight, rows)
        whole = torch.compile(_cross_entropy) if variant.label == COMPILED else _cross_entropy
        return lambda: whole(hidden, weight, target)
    features = _features(loss, hidden, target, loss.num_classes(len(weight)))
    if variant.dense:
        return lambda: _dense(loss, features, LinearMap(weight, None))
    return lambda: loss(features, LinearMap(weight, None)).total


def _cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight), target, reduction="sum")


def _bound(loss: Loss, weight: Tensor, size: int) -> Loss:
    loss.bind(_sizes(weight, size))
    return loss.to(weight.device)


def _sizes(weight: Tensor, size: int) -> OutputSpec:
    num_outputs, width = weight.shape
    counts = torch.ones(size, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    return OutputSpec(num_outputs, width, generator, class_counts=counts, size=size)


def _features(loss: Loss, hidden: Tensor, target: Tensor, num_outputs: int) -> Features:
    """Features with everything that the loss reads: random tokens before and after each target, a teacher as wide as
    the network."""
    device = hidden.device
    generator = torch.Generator(device).manual_seed(2)
    extras = {}
    for name in [name for name in ("previous", "next") if loss.needs.get(name)]:
        size = (len(target), min(loss.needs[name], _CONTEXT))
        extras[name] = torch.randint(num_outputs, size, generator=generator, device=device)
    if loss.reads_teacher:
        taught = torch.randn(num_outputs, hidden.shape[1], generator=generator, device=device)
        taught.div_(hidden.shape[1] ** 0.5)
        loss.teach(lambda states: (states @ taught.T).log_softmax(dim=-1))
        extras["teacher_hidden"] = torch.randn(hidden.shape, generator=generator, device=device)
    if loss.target_kind is not TargetKind.CLASSES:
        target = torch.zeros(len(target), num_outputs, device=device).scatter_(-1, target[:, None], 1.0)
    return Features(hidden, target, torch.ones(len(target), device=device), extras)


def _dense(loss: Loss, features: Features, projection: LinearMap) -> Tensor:
    features = loss.select(features).kept()
    return (features.weight * added(loss.values(features, projection))).sum()


@torch.no_grad()
def _products(hidden: Tensor, weight: Tensor, rows: int) -> None:
    """Logits, and both gradients, of so many positions at a time: no head that multiplies by all of the weight does
    less."""
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    quicker = is_quicker(hidden, weight)
    columns = weight.T.contiguous() if quicker else weight.T
    for start in range(0, len(hidden), rows):
        piece = hidden[start : start + rows]
        logits = times_transposed(piece, weight)
        times_transposed(logits, columns)
        if quicker:
            times_transposed(piece.T, logits.T)
        else:
            logits.T @ piece
