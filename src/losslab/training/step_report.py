"""Values of an optimizer step for logs and checkpoints, and how they come from the device."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from losslab.training.reduce import UnreadSums


@dataclass
class StepReport:
    """Values of an optimizer step for the logs."""

    objective: float
    terms: dict[str, float]
    """The parts of the objective that the loss names."""
    weight: float
    learning_rates: dict[str, float]
    """Learning rates of the optimizer's named groups, and of all other parameters under the empty name."""
    gradient_norms: dict[str, float] = field(default_factory=dict)
    """Norms after the rescale, before clipping: `all`, and on logged steps one for each hidden state."""
    stop: bool = False
    """A rank received a signal."""


class UnreadReport:
    """The report of a step whose numbers are on their way from the device, which nobody waits for meanwhile.

    Args:
        step: counted from 1.
        norm: of the whole gradient, a scalar.
    """

    def __init__(self, step: int, sums: UnreadSums, norm: Tensor, learning_rates: dict[str, float]) -> None:
        self.step = step
        self.norm = norm
        self._sums = sums
        self._learning_rates = learning_rates
        values = torch.cat([sums.values, norm.double()[None]])
        self._arrived: torch.cuda.Event | None = None
        self._values = values
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> StepReport:
        """Wait until the step's gradients are computed, though not for what was queued after them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        *numbers, norm = self._values.tolist()
        sums = self._sums.read(numbers)
        return StepReport(
            objective=sums.objective,
            terms=sums.terms,
            weight=sums.weight,
            learning_rates=self._learning_rates,
            gradient_norms={"all": norm},
            stop=sums.flag,
        )
