"""The three conventions of label smoothing."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from losslab.contracts import Features
from losslab.errors import UserError

Convention = Literal["torch", "fairseq", "annotated_transformer"]


class Smoothing:
    """q = on · onehot(y) + off · (1 − onehot(y)), for ε of the probability taken from the target.

    `torch` spreads ε over all V classes: on = 1 − ε + ε/V, off = ε/V (Szegedy et al. 2016, arXiv:1512.00567). `fairseq`
    spreads it over the other classes: on = 1 − ε, off = ε/(V − 1), which is torch's with ε V/(V − 1).
    `annotated_transformer` (Rush 2018) spreads it over the others but padding: off = ε/(V − 2), and q is 0 at
    `padding_id`; positions whose target is padding are ignored.

    Args:
        epsilon: ε in [0, 1).
        convention: as above.
        padding_id: the class that gets no probability, for `annotated_transformer` alone.

    Raises:
        UserError: for values outside these ranges.
    """

    def __init__(self, epsilon: float, convention: Convention = "torch", padding_id: int | None = None) -> None:
        if not 0 <= epsilon < 1:
            raise UserError(f"loss.label_smoothing must be in [0, 1), not {epsilon}")
        if (padding_id is not None) != (convention == "annotated_transformer"):
            raise UserError(
                "loss.padding_id is the class that annotated_transformer leaves out: give it with "
                "loss.smoothing_convention=annotated_transformer, and only with it"
            )
        if padding_id is not None and padding_id < 0:
            raise UserError(f"loss.padding_id must be 0 or above, not {padding_id}")
        self.epsilon = epsilon
        self.convention = convention
        self.padding_id = padding_id

    def check(self, num_outputs: int) -> None:
        """Raises UserError where the convention does not fit V classes."""
        if self.padding_id is not None and self.padding_id >= num_outputs:
            raise UserError(f"loss.padding_id={self.padding_id} is no class: there are {num_outputs:,}")
        if num_outputs <= self._left_out:
            raise UserError(f"{self.convention} smoothing needs more than {self._left_out} classes, not {num_outputs}")

    def off(self, num_outputs: int) -> float:
        """The probability of each class that is not the target."""
        return self.epsilon / (num_outputs - self._left_out)

    def extra(self, num_outputs: int) -> float:
        """The probability of the target beyond `off`."""
        return 1 - self.epsilon - (0.0 if self.convention == "torch" else self.off(num_outputs))

    def spread(self, num_outputs: int) -> Tensor:
        """float64 [V]: `off`, and 0 at padding; q is this and `extra` at the target."""
        spread = torch.full((num_outputs,), self.off(num_outputs), dtype=torch.float64)
        if self.padding_id is not None:
            spread[self.padding_id] = 0.0
        return spread

    def undone(self, q: Tensor) -> Tensor:
        """The distribution [N, V] that smoothing turned into q [N, V], which is overwritten: (q − spread) / extra."""
        if self.epsilon == 0:
            return q
        num_outputs = q.shape[-1]
        spread = self.off(num_outputs) if self.padding_id is None else self.spread(num_outputs).to(q)
        return q.sub_(spread).div_(self.extra(num_outputs))

    def entropy(self, num_outputs: int) -> float:
        """H(q)."""
        off = self.off(num_outputs)
        on = self.extra(num_outputs) + off
        others = num_outputs - 1 - (self.padding_id is not None)
        return -on * math.log(on) - (others * off * math.log(off) if off > 0 else 0.0)

    def select(self, features: Features) -> Features:
        """Leave out the positions whose target is padding."""
        if self.padding_id is None:
            return features
        return features.weighted(features.target != self.padding_id)

    @property
    def _left_out(self) -> int:
        return {"torch": 0, "fairseq": 1, "annotated_transformer": 2}[self.convention]
