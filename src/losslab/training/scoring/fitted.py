"""Probabilities under the numbers that val fitted, instead of the loss's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from losslab.choices import chosen
from losslab.contracts import DataInfo, Task
from losslab.errors import UserError

TemperatureChoice = Literal["none", "fitted"]
CHOICES: tuple[TemperatureChoice, ...] = ("none", "fitted")


@dataclass(frozen=True)
class Fitted:
    """s of softmax(s · z), and of labels that do not exclude one another b of σ(s · z + b)."""

    scale: float
    shift: float = 0.0

    @classmethod
    def choose(cls, choice: str, task: Task, info: DataInfo, scale: float, shift: float) -> Fitted | None:
        """The fitted numbers, or None for the loss's own probabilities.

        Raises:
            UserError: for another choice, and for a task that fits none.
        """
        if choice not in CHOICES:
            raise UserError(f"temperature must be {' or '.join(CHOICES)}, not {choice!r}")
        if choice == "none":
            return None
        if task.calibrator(info) is None:
            raise UserError(f"{chosen('task', task)} fits no temperature: it predicts no probabilities of classes")
        if task.points:
            raise UserError(f"{chosen('task', task)} predicts places, and a temperature changes none: leave it out")
        return cls(scale, shift)

    def told(self) -> str:
        """A sentence for people."""
        how = f"σ(s · z + b), s = {self.scale:.4g} and b = {self.shift:.4g}" if self.shift else f"s = {self.scale:.4g}"
        return f"probabilities are those under the temperature that val fitted ({how})"

    def log_probs(self, scores: Tensor, *, exclusive: bool) -> Tensor:
        """Scores [N, V] → log-probabilities float32 [N, V].

        Args:
            exclusive: one class holds alone.
        """
        scaled = self.scale * scores.float()
        return scaled.log_softmax(dim=-1) if exclusive else F.logsigmoid(scaled + self.shift)
