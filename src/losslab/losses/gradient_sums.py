"""Gradients of a loss, summed over its chunks, and the node of the graph that hands them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from losslab.contracts import Projection
from losslab.products import add_product, is_quicker, product, times_transposed

_ROWS_WORTH_A_COPY = 2048
"""Positions from which on a transposed copy of the weight saves a tenth of a head's time, which is worth its memory."""
_LEAST_WIDTH, _MOST_BYTES = 128, 2**25
"""Rows [V] of a chunk's product with the logits, before it is added: oneDNN reads all logits for each part of them, so
that fewer cost time, and bytes of such a part."""
Compute = Callable[[], tuple[Tensor, "Gradients"]]


class WeightSum:
    """The gradient in a projection's weight, float32 [V, D], made when something is first added to it.

    Args:
        weight: the projection's.
        total: a sum that is added to.
    """

    def __init__(self, weight: Tensor, total: Tensor | None = None) -> None:
        self._like = weight
        self._total = total

    def total(self) -> Tensor:
        """[V, D]; a transposed view where that is quicker to add to."""
        if self._total is None:
            self._total = _zeros(self._like)
        return self._total

    def transposed(self) -> Tensor:
        """[D, V], in rows unless the sum has begun otherwise."""
        if self._total is None:
            self._total = _zeros(self._like.T).T
        return self._total.T

    def add_product(self, logits: Tensor, hidden: Tensor) -> None:
        """Add logitsᵀ [V, n] · hidden [n, D], of one dtype. oneDNN would copy the logits if its result were not
        transposed."""
        if logits.dtype != torch.float32:
            if self._total is None and logits.is_cuda:
                self._total = product(logits.T, hidden)
            else:
                add_product(self.total(), logits.T, hidden)
            return
        if not is_quicker(hidden.T, logits.T):
            if self._total is None:
                self._total = logits.T @ hidden
            else:
                self._total.addmm_(logits.T, hidden)
            return
        most = max(_LEAST_WIDTH, _MOST_BYTES // (4 * logits.shape[1]))
        parts = -(-hidden.shape[1] // most)
        for total, columns in zip(self.transposed().chunk(parts), hidden.T.contiguous().chunk(parts), strict=True):
            total.add_(times_transposed(columns, logits.T))


class Gradients:
    """Float32 sums over the chunks of the gradients that are needed; None where one is not."""

    def __init__(self, hidden: Tensor, projection: Projection, parameters: list[torch.nn.Parameter]) -> None:
        on = torch.is_grad_enabled()
        weight, bias = projection.weight, projection.bias
        self.hidden = _zeros(hidden) if on and hidden.requires_grad else None
        self.weight_sum = WeightSum(weight) if on and weight.requires_grad else None
        self.bias = _zeros(bias) if on and bias is not None and bias.requires_grad else None
        self.parameters = [_zeros(parameter) if on and parameter.requires_grad else None for parameter in parameters]
        self._linear: tuple[Tensor, Tensor] | None = None
        self._columns_of: tuple[Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor | None:
        """[V, D], to be added to in place."""
        return None if self.weight_sum is None else self.weight_sum.total()

    def all(self) -> list[Tensor | None]:
        return [self.hidden, self.weight, self.bias, *self.parameters]

    @property
    def needed(self) -> bool:
        found = (self.hidden, self.weight_sum, self.bias, *self.parameters)
        return any(gradient is not None for gradient in found)

    def add_logits(self, rows: slice, logits: Tensor, factor: Tensor, hidden: Tensor, projection: Projection) -> None:
        """Carry a gradient in the logits, `factor` [n, 1] · `logits` [n, V], on to hidden states and projection.

        `logits` is overwritten. In the projection's half precision it is multiplied as it is; in float32 beside a
        projection in half precision the factor comes before the rounding, for float16 could not hold it without.
        """
        dtype = projection.weight.dtype
        if dtype == torch.float32:  # n × D products with the factor instead of n × V
            if self.hidden is not None:
                columns = self._columns(hidden, projection.weight)
                torch.mul(times_transposed(logits, columns), factor, out=self.hidden[rows])
            if self.weight_sum is not None:
                self.weight_sum.add_product(logits, factor * hidden)
        else:
            if logits.dtype != dtype:
                logits, factor = logits.mul_(factor).to(dtype), torch.ones_like(factor)
            if self.hidden is not None:
                torch.mul(product(logits, projection.weight), factor, out=self.hidden[rows])
            if self.weight_sum is not None:
                self.weight_sum.add_product(logits, (factor * hidden).to(dtype))
        if self.bias is not None:
            if dtype == torch.float32:
                self.bias.addmv_(logits.T, factor[:, 0])
            else:
                add_product(self.bias[:, None], logits.T, factor.to(dtype))

    def reserve(self, hidden: Tensor, weight: Tensor) -> None:
        """Make what is as large as the weight before a chunk's logits: in memory behind them, it would leave a hole of
        their size that the next ones, which must be aligned, do not fit."""
        if is_quicker(hidden, weight):
            self._columns(hidden, weight)
            if self.weight_sum is not None:
                self.weight_sum.transposed()

    def _columns(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """The weight, transposed [D, V]: a copy where so many rows are multiplied by it that this is quicker."""
        if self.hidden is None or len(self.hidden) < _ROWS_WORTH_A_COPY or not is_quicker(hidden, weight):
            return weight.T
        if self._columns_of is None or self._columns_of[0] is not weight:
            self._columns_of = weight, weight.T.contiguous()
        return self._columns_of[1]

    def add_linear(self, rows: slice, product: Tensor, hidden: Tensor, u: Tensor, folded: Tensor) -> None:
        """Carry a gradient in u · z = h · (Wᵀu) + b · u, `product` [n], on; that in the weight waits for `finish`."""
        if self.hidden is not None:
            self.hidden[rows].addr_(product, folded)
        if self.bias is not None:
            self.bias += product.sum() * u
        summed = product @ hidden.float()
        self._linear = (u, summed if self._linear is None else self._linear[1] + summed)

    def finish(self) -> None:
        if self._linear is not None and self.weight is not None:
            self.weight.addr_(*self._linear)


def _zeros(tensor: Tensor) -> Tensor:
    # Not the default dtype: under trainer.precision=bf16-true that is bfloat16.
    return torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device)


def sum_with_gradients(compute: Compute, *inputs: Tensor | None) -> Tensor:
    """The sum that `compute` makes, in the graph of the inputs whose gradients it makes too."""
    total: Tensor = _GradientInForward.apply(compute, *inputs)  # type: ignore[no-untyped-call]
    return total


class _GradientInForward(torch.autograd.Function):
    """A sum whose gradients are known as soon as its value is."""

    @staticmethod
    def forward(ctx: Any, compute: Compute, *inputs: Tensor) -> Tensor:
        total, gradients = compute()
        ctx.gradients, ctx.dtypes = gradients.all(), [None if tensor is None else tensor.dtype for tensor in inputs]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        if ctx.gradients is None:
            raise RuntimeError("a loss gives its gradient once; call it again for a second backward pass")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [
            None if gradient is None else _scaled(gradient, upstream).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        return None, *scaled


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """The product in rows; in place where they are rows already, for another copy may not fit."""
    if gradient.is_contiguous():
        return gradient.mul_(factor)
    return torch.mul(gradient, factor, out=torch.empty(gradient.shape, dtype=gradient.dtype, device=gradient.device))
