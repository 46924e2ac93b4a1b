"""Losses with one fault each, the check that finds it, and words of the sentence that names its cause."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from right_losses import WithBuffer, ce
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features, LossSum, OutputSpec, Projection
from losslab.losses.base import Loss
from losslab.losses.gaussian_nll import GaussianNLL


class MinusCrossEntropy(Loss):
    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return log_prob


class NeverTrainsClassZero(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none", ignore_index=0)


class ClampedProbability(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        p = logits.softmax(dim=-1).gather(-1, target[:, None])[:, 0]
        return -p.clamp_min(1e-7).log()


class SmoothsInTraining(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        epsilon = 0.1 if self.training else 0.0
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=epsilon)


class KeepsProbabilities(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        self.p = logits.softmax(dim=-1)
        return ce(logits, target)


class ListOfProbabilities(Loss):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        self.seen.append(logits.softmax(dim=-1).detach())
        return ce(logits, target)


class LogSoftmaxInBfloat16(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return -F.log_softmax(logits, dim=-1, dtype=torch.bfloat16).gather(-1, target[:, None])[:, 0]


class HalfSums(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target).half()


class WritesInPlace(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        logits[:, 0] = -50.0
        return ce(logits, target)


class WritesIntoData(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        logits.data.clamp_(max=1.0)
        return ce(logits, target)


class InfiniteMaskAndSmoothing(Loss):
    def map_logits(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(torch.arange(logits.shape[-1]) == 0, -math.inf)

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target.clamp(min=1), reduction="none", label_smoothing=0.1)


class ReturnsMean(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target)


class SoftmaxTwice(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits.softmax(dim=-1), target)


class SumForEach(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target).sum().expand(len(target))


class MeanForEach(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target).mean().expand(len(target))


class ShiftedTargets(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, (target + 1) % logits.shape[-1])


class DetachedTargetLogit(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.logsumexp(dim=-1) - logits.detach().gather(-1, target[:, None])[:, 0]


class BatchNormalised(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce((logits - logits.mean(dim=0)) / (logits.var(dim=0, unbiased=False) + 1).sqrt(), target)


class Noisy(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits + 0.1 * torch.randn_like(logits), target)


class Unnormalised(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.exp().sum(dim=-1).log() - logits.gather(-1, target[:, None])[:, 0]


class FirstRowAlone(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits[:1], target[:1]).expand(len(target))


class WeightsByPosition(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return ce(logits, target) * (1 + torch.arange(len(target)) % 3)


class MovingAverage(Loss):
    def __init__(self) -> None:
        super().__init__()
        self.level = 1.0

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        own = ce(logits, target)
        self.level = 0.9 * self.level + 0.1 * own.mean().item()
        return own / self.level


class WithoutWeight(Loss):
    def forward(self, features: Features, projection: Projection) -> LossSum:
        kept = features.kept()
        values = ce(projection(kept.hidden).float(), kept.target)
        return LossSum(values.sum(), kept.weight.sum().detach())


class RootOfZero(Loss):
    """An infinite slope where the target is certain."""

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob + (1 - log_prob.exp()).sqrt()


class DensityWithoutConstant(GaussianNLL):
    """Half of log 2π is left out, as in the loss."""

    def log_density(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().log_density(logits, target) + 0.5 * math.log(2 * math.pi)


class QuantilesByVariance(GaussianNLL):
    """The variance stands where the standard deviation should."""

    def predict_quantiles(self, logits: Tensor, levels: Sequence[float]) -> Tensor:
        mean, log_variance = logits.chunk(2, dim=-1)
        return super().predict_quantiles(torch.cat([mean, 2 * log_variance], dim=-1), levels)


class UndeclaredPrior(WithBuffer):
    per_class = False


class KeepsTheNumberOfClasses(Loss):
    def bind(self, spec: OutputSpec) -> None:
        self.size = spec.num_classes

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob / self.size


WRONG: list[tuple[type[Loss], str, str]] = [
    (MinusCrossEntropy, "targets", "sign is wrong"),
    (NeverTrainsClassZero, "targets", "class 0 .*never trained"),
    (ClampedProbability, "targets", "clamped before its log"),
    (SmoothsInTraining, "training mode", "self.training"),
    (KeepsProbabilities, "memory", "stay alive after the call"),
    (ListOfProbabilities, "memory", "stay alive after the call"),
    (LogSoftmaxInBfloat16, "precision", "computes in bfloat16 or float16"),
    (HalfSums, "precision", "computes in bfloat16 or float16"),
    (WritesInPlace, "values", "in place"),
    (WritesIntoData, "values", "in place"),
    (InfiniteMaskAndSmoothing, "values", "label smoothing mostly"),
    (ReturnsMean, "values", "reduction='none'"),
    (SoftmaxTwice, "targets", "softmax is there twice"),
    (SumForEach, "sums, not means", "depends on the others"),
    (MeanForEach, "chunks", "depends on the others"),
    (ShiftedTargets, "targets", "another class"),
    (DetachedTargetLogit, "gradient", "detached"),
    (BatchNormalised, "chunks", "depends on the others"),
    (Noisy, "gradient", "random numbers"),
    (Unnormalised, "logits of ±10,000", "largest logit"),
    (FirstRowAlone, "order of positions", "depends on its neighbours"),
    (WeightsByPosition, "order of positions", "depends on its neighbours"),
    (MovingAverage, "gradient", "keeps state"),
    (WithoutWeight, "sums, not means", "features.weight is not multiplied in"),
    (DensityWithoutConstant, "predictions", "must be normalised"),
    (QuantilesByVariance, "predictions", "its density has the mass"),
    (UndeclaredPrior, "classes", "declare per_class = True.*bound for 2 classes, it raises"),
    (KeepsTheNumberOfClasses, "classes", "declare per_class = True.*another sum for 11"),
    (RootOfZero, "logits of ±10,000", "not finite"),
]
