"""Losses that nothing is wrong with, each written as somebody might write it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.contracts import OutputSpec
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy


def ce(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="none")


class FloatFirst(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits.float(), target)


class ToFloat32(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return -F.log_softmax(logits, dim=-1, dtype=torch.float32).gather(-1, target[:, None])[:, 0]


class DoubleFirst(Loss):
    """Returns float64."""

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits.double(), target)


class DoubleOfLogProb(Loss):
    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob.double()


class MarginTakesNaN(Loss):
    def __init__(self, *, margin: float = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits - self.margin * F.one_hot(target, logits.shape[-1]), target)


class FocalFromP(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=-1).gather(-1, target[:, None])[:, 0]
        return -((1 - log_p.exp()) ** 2) * log_p


class LearnableTemperature(Loss):
    def bind(self, spec: OutputSpec) -> None:
        self.log_scale = nn.Parameter(torch.zeros(()))

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits * self.log_scale.exp(), target)


class WithBuffer(Loss):
    per_class = True

    def bind(self, spec: OutputSpec) -> None:
        assert spec.class_counts is not None
        self.register_buffer("prior", (spec.class_counts / spec.class_counts.sum()).log().float())

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits + self.prior, target)


class WhereMask(Loss):
    """Sure positions count half."""

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return torch.where(log_prob > -0.1, -0.5 * log_prob, -log_prob - 0.05)


class Subclass(CrossEntropy):
    def __init__(self, *, label_smoothing: float = 0.2) -> None:
        super().__init__(label_smoothing=label_smoothing)


class OwnSmoothing(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=-1)
        return -0.9 * log_p.gather(-1, target[:, None])[:, 0] - 0.1 * log_p.mean(dim=-1)


class BiTempered(Loss):
    """The tempered logarithm of softmax, t = 0.8."""

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -torch.expm1(0.2 * log_prob) / 0.2


class GatherThenFloat(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return -logits.log_softmax(dim=-1).gather(-1, target.unsqueeze(1)).squeeze(1).float()


class TwoTerms(Loss):
    terms = ("own", "spread")

    def position_loss(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"own": ce(logits, target), "spread": 0.01 * logits.square().mean(dim=-1)}


class FiniteMask(Loss):
    """Large negative logits, no infinities."""

    def map_logits(self, logits: Tensor) -> Tensor:
        return logits.clamp(min=-3e4)

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target)


RIGHT = [thing for thing in list(vars().values()) if isinstance(thing, type) and issubclass(thing, Loss)]
RIGHT = [loss for loss in RIGHT if loss.__module__ == __name__]
