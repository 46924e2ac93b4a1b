"""Execution of a loss over the positions of a batch: in chunks, each with its gradient, so that the logits of the whole
batch never exist.

A chunk's gradient is computed where its value is, in the forward pass; the backward pass only multiplies by what comes
from above (as in Liger, Hsu et al. 2024, arXiv:2410.10989, and torch's linear_cross_entropy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, Projection, Values
from losslab.errors import UserError
from losslab.losses.contract import RunnableLoss
from losslab.losses.gradient_sums import Gradients, sum_with_gradients
from losslab.losses.targets import check_targets
from losslab.products import linear

_PROJECTED = {"cpu": 2**26, "cuda": 2**30}
"""Bytes for a chunk's float32 logits: many, since each chunk reads the weight twice and adds a gradient of its size."""
_MANY_OUTPUTS, _PROJECTED_OF_MANY = 2**15, _PROJECTED | {"cpu": 2**25}
"""Above this number of outputs a CPU gets half as many bytes, so that a step takes half of a dense one's memory."""
_FEATURES = {"cpu": 2**24, "cuda": 2**27}
"""The same for logits inside the graph, where each chunk makes a gradient of the size of the weight."""
_GRAPH = {"cpu": 2**21, "cuda": 2**26}
"""The same for logits down to which autograd goes, which keeps up to 16 copies of them; on a GPU enough to fill it."""
_MOST_ROWS = 2048
"""More make no product faster."""

_limit: ContextVar[int] = ContextVar("limit", default=_MOST_ROWS)


@contextmanager
def limit_rows(rows: int) -> Iterator[None]:
    """Project at most this many positions at once; for checks that chunks change nothing."""
    token = _limit.set(rows)
    try:
        yield
    finally:
        _limit.reset(token)


def projection_rows(num_outputs: int, device: torch.device) -> int:
    """The number of positions to project at once."""
    return _rows(num_outputs, device, _PROJECTED_OF_MANY if num_outputs > _MANY_OUTPUTS else _PROJECTED)


def feature_rows(num_outputs: int, device: torch.device) -> int:
    """The number of positions to project inside the graph at once; each time costs a gradient of the size of the
    weight."""
    return _rows(num_outputs, device, _FEATURES)


def graph_rows(num_outputs: int, device: torch.device) -> int:
    """The number of positions whose logits are differentiated at once."""
    return _rows(num_outputs, device, _GRAPH)


def _rows(num_outputs: int, device: torch.device, budgets: Mapping[str, int]) -> int:
    budget = budgets.get(device.type, budgets["cuda"])
    return max(1, min(_limit.get(), budget // (4 * num_outputs)))


class LinearMap(NamedTuple):
    """A projection in the precision that autocast asks for, cut off from the graph."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.weight, self.bias)


@dataclass(frozen=True)
class Chunk:
    """Some positions, cut off from the graph."""

    rows: slice
    """Where this chunk stands among all hidden states."""
    features: Features
    """Hidden states in the precision of the projection."""
    weight: Tensor
    """float32 [n], or of each sequence."""

    def slices(self, size: int) -> Iterator[Chunk]:
        """Consecutive parts of at most `size` positions, whose `rows` count from the start of this chunk."""
        start = first = 0
        for part in self.features.chunks(size):
            stop, last = start + len(part.hidden), first + len(part)
            yield Chunk(slice(start, stop), part, self.weight[first:last])
            start, first = stop, last


class Execution:
    """One evaluation of a loss: its positions, its projection, and the sums that grow chunk by chunk."""

    def __init__(
        self,
        loss: RunnableLoss,
        features: Features,
        projection: Projection,
        *,
        rows: Callable[[int, torch.device], int] | None = projection_rows,
        adapt: bool = True,
    ) -> None:
        """`rows`, of V and the device, is how many positions to take at once; None takes all. Without `adapt` the loss
        sees hidden states and projection as they came."""
        self.loss = loss
        features = features.kept()
        num_outputs, device = loss.num_classes(len(projection.weight)), projection.weight.device
        check_targets(features.target, loss, num_outputs)
        features = loss.select(features).kept()
        if adapt:
            hidden, projection = loss.adapt(features.hidden, projection)
            features = replace(features, hidden=hidden)
        self.features = features
        self.given = projection
        dtype = torch.float32 if loss.exact_products else projection.weight.dtype
        if torch.is_autocast_enabled(device.type) and not loss.exact_products:
            dtype = torch.get_autocast_dtype(device.type)
        bias = projection.bias
        self.projection = LinearMap(
            projection.weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)
        )
        everything = max(1, len(self.features.hidden))
        self.rows = rows(num_outputs, device) if rows is not None and loss.position_wise else everything
        self.slice_rows = graph_rows(num_outputs, device) if loss.position_wise else everything
        self.parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
        self.terms = torch.zeros(len(loss.terms), dtype=torch.float32, device=device)

    def run(
        self, add: Callable[[Chunk, Gradients], Tensor], last: Callable[[Gradients], None] | None = None
    ) -> LossSum:
        """Sum what `add` returns for every chunk; it adds to the gradients itself, and `last` once more at the end."""
        hidden, weight, bias = self.features.hidden, self.given.weight, self.given.bias
        gradients = Gradients(hidden, self.given, self.parameters)

        def compute() -> tuple[Tensor, Gradients]:
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            with torch.autocast(device_type=hidden.device.type, enabled=False):
                for chunk in self._chunks():
                    total = total + add(chunk, gradients).float()  # an author may compute in float64
                gradients.finish()
                if last is not None:
                    last(gradients)
            return total, gradients

        if gradients.needed:
            total = sum_with_gradients(compute, hidden, weight, bias, *self.parameters)
        else:
            total = compute()[0]
        terms = dict(zip(self.loss.terms, self.terms.unbind(), strict=True))
        return LossSum(total=total, weight=self._denominator(), terms=terms)

    def logits(self, chunk: Chunk, gradients: Gradients) -> Tensor:
        """Logits [n, V] of a chunk, whose gradient goes to `gradients.add_logits`."""
        gradients.reserve(chunk.features.hidden, self.projection.weight)
        return self.projection(chunk.features.hidden)

    def weigh(self, chunk: Chunk, values: Values) -> Tensor:
        """Σ weight · value; the sums of a loss's terms are noted on the way.

        Raises:
            UserError: where there is not one value for each position.
        """
        if not self.loss.terms:
            return (chunk.weight * self._checked(values, len(chunk.weight))).sum()
        if not isinstance(values, Mapping) or not set(values) <= set(self.loss.terms):
            got = sorted(values) if isinstance(values, Mapping) else f"a {type(values).__name__}"
            raise UserError(f"{self._author} must return its terms {list(self.loss.terms)} by name, not {got}")
        count = len(chunk.weight)
        sums = {name: (chunk.weight * self._checked(value, count)).sum() for name, value in values.items()}
        zero = torch.zeros_like(self.terms[0])  # of a term that is added elsewhere
        self.terms += torch.stack([sums.get(name, zero).detach() for name in self.loss.terms])
        return torch.stack(list(sums.values())).sum()

    def _checked(self, values: object, count: int) -> Tensor:
        if not isinstance(values, Tensor) or values.shape != (count,):
            got = f"the {type(values).__name__} {values!r}"
            if isinstance(values, Tensor):
                got = f"shape {list(values.shape)}"
            raise UserError(
                f"{self._author} returned {got} for {count} positions; it must return one value for each, unreduced"
            )
        return values

    @property
    def _author(self) -> str:
        return f"{type(self.loss).__name__}.{self.loss.written_as()}"

    def differentiate(self, total: Tensor, leaves: list[Tensor], gradients: Gradients) -> list[Tensor]:
        """The gradients in `leaves`, 0 where one has no part in the total; those of the loss's parameters are added."""
        if not total.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves]
        found = torch.autograd.grad(total, [*leaves, *self.parameters], allow_unused=True)
        for gradient, new in zip(gradients.parameters, found[len(leaves) :], strict=True):
            if gradient is not None and new is not None:
                gradient += new
        return [
            torch.zeros_like(leaf) if new is None else new
            for leaf, new in zip(leaves, found[: len(leaves)], strict=True)
        ]

    def _chunks(self) -> Iterator[Chunk]:
        start = 0
        for features in self.features.chunks(self.rows):
            hidden = features.hidden.detach().to(self.projection.weight.dtype)
            stop = start + len(hidden)
            yield Chunk(slice(start, stop), replace(features, hidden=hidden), features.weight.float())
            start = stop

    def _denominator(self) -> Tensor:
        weight = self.features.weight.float()
        share = self.loss.position_weight(self.features)
        return (weight.sum() if share is None else (weight * share).sum()).detach()
