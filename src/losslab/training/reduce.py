"""The one place that divides: gradients of Σ total / Σ weight over a whole optimizer step.

Lightning divides each micro-batch's loss by `accumulate_grad_batches`, and DDP averages over ranks. So a micro-batch
hands over total / C, with C a constant that keeps numbers near 1 for fp16, and at the step the gradients, by then
Σ total / (C · accumulate · ranks), are multiplied by C · accumulate · ranks / W, where W is the weight of every
micro-batch of the window and every rank. k micro-batches on r ranks then equal one big batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed

from losslab.contracts import LossSum


class StepReducer:
    """Sums over the accumulation window of one optimizer step.

    Args:
        nominal_weight: C, the weight of a full micro-batch.
        accumulate: micro-batches in a window.
        ranks: processes that train together.
    """

    def __init__(self, *, nominal_weight: float, accumulate: int, ranks: int) -> None:
        self.nominal_weight = nominal_weight
        self.accumulate = accumulate
        self.ranks = ranks
        self._total: Tensor | None = None
        self._weight: Tensor | None = None
        self._terms: dict[str, Tensor] = {}

    def add(self, result: LossSum) -> Tensor:
        """Note a micro-batch's sums; returns what to call backward on."""
        total, weight = result.total.detach().double(), result.weight.detach().double()
        self._total = total if self._total is None else self._total + total
        self._weight = weight if self._weight is None else self._weight + weight
        for name, value in result.terms.items():
            self._terms[name] = self._terms.get(name, torch.zeros_like(total)) + value.detach().double()
        return result.total / self.nominal_weight

    def finish(self, flag: bool = False) -> WindowSums:
        """Sum the window over all ranks, once, start the next, and read the sums. Arguments: see `sum_up`."""
        return self.sum_up(flag).read()

    def sum_up(self, flag: bool = False) -> UnreadSums:
        """Sum the window over all ranks, once, and start the next.

        Args:
            flag: travels along and comes back true if any rank raised it (a signal to stop, say).
        """
        assert self._total is not None, "sum_up() without add()"
        assert self._weight is not None
        names = list(self._terms)  # the same on every rank: a loss names its terms beforehand
        flagged = torch.full_like(self._total, float(flag))
        sums = torch.stack([self._total, self._weight, flagged, *self._terms.values()])
        self._total, self._weight, self._terms = None, None, {}
        if self.ranks > 1:
            distributed.all_reduce(sums)
        return UnreadSums(sums, names, constant=self.nominal_weight * self.accumulate * self.ranks)


class UnreadSums:
    """The sums of one optimizer step, still on the device.

    Args:
        values: float64 [3 + terms]: total, weight, flag, and the terms.
        constant: the factor of each gradient times the weight.
    """

    def __init__(self, values: Tensor, names: list[str], *, constant: float) -> None:
        self.values = values
        self.names = names
        self.constant = constant

    def read(self, numbers: list[float] | None = None) -> WindowSums:
        """The sums as numbers.

        Args:
            numbers: `values`, where they have been read.
        """
        total, weight, flags, *terms = self.values.tolist() if numbers is None else numbers
        factor = self.constant / weight if weight else 0.0
        means = {name: term / weight if weight else 0.0 for name, term in zip(self.names, terms, strict=True)}
        return WindowSums(total=total, weight=weight, factor=factor, flag=flags > 0, terms=means)

    def rescale(self, gradients: list[Tensor]) -> None:
        """Turn accumulated float32 gradients into those of Σ total / Σ weight, as `WindowSums.rescale` does, on the
        device."""
        weight = self.values[1]
        factor = torch.where(weight == 0, 0.0, torch.full_like(weight, self.constant) / weight)
        torch._foreach_mul_(gradients, factor.float())


class WindowSums:
    """The sums of one optimizer step over all micro-batches and ranks."""

    def __init__(
        self, *, total: float, weight: float, factor: float, flag: bool, terms: dict[str, float] | None = None
    ) -> None:
        self.total = total
        self.weight = weight
        self.factor = factor
        """The factor of each gradient; 0 where every position was ignored."""
        self.flag = flag
        self.terms = terms or {}
        """Terms of the objective, by name, divided as it is."""

    @property
    def objective(self) -> float:
        """Σ total / Σ weight; 0 where every position was ignored."""
        return self.total / self.weight if self.weight else 0.0

    def rescale(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Turn accumulated gradients into those of Σ total / Σ weight; those of an empty window become 0."""
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if self.factor:
                parameter.grad.mul_(self.factor)
            else:
                parameter.grad.zero_()
