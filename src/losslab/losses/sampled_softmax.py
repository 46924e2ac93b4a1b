"""Sampled softmax: cross-entropy among the target and a sample of the other classes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, OutputSpec, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.chunked_gradients import run_softmax
from losslab.losses.execution import Chunk, Execution, LinearMap
from losslab.losses.gradient_sums import Gradients

_HALVINGS = 100


class SampledSoftmax(Loss):
    """Sampled softmax: trains by cross-entropy among the target and a sample of the other classes.

    Formula:
        ℓ = −log (e^{a_y} / Σ_{j∈C} e^{a_j}), a_j = z_j − log π_j, C the target and a sample of the classes, which
        class j joins by itself with probability π_j = 1 − e^{−t q_j}; t gives Σ_j π_j = samples.
    Gradient:
        ∂ℓ/∂z_j = softmax_C(a)_j − [j = y] for j in C, and 0 for the other classes.
    Source:
        Jean et al. 2015, arXiv:1412.2007; the correction: Bengio & Senécal 2008, "Adaptive importance sampling to
        accelerate training of a neural probabilistic language model".
    Use:
        For vocabularies of tens of thousands and more: a step costs as much as one of `samples` classes. All classes
        sampled are cross-entropy; for any number of them the minimum of the expected loss is the data's distribution.
    Weakness:
        Noise in the gradient, most with few samples and rare targets. The objective of training is that among C, which
        is smaller than that of an evaluation, cross-entropy.
    Prediction:
        softmax(z), of all classes.
    Posterior:
        η = p.

    Args:
        samples: how many classes are sampled on average, 1 or above; from V on all of them are.
        proposal: q: log_uniform, log((r + 2) / (r + 1)) for the rank r of a class by its count in train, from 0; or
            unigram, its count and 1.
    Raises:
        UserError: for a number of samples below 1.
    """

    per_class = True
    cost_class = "F6"
    is_proper = True
    shift_invariant = True
    forward_sums_scores = True
    trains_otherwise = True
    draws = True

    def __init__(self, *, samples: int = 1024, proposal: Literal["log_uniform", "unigram"] = "log_uniform") -> None:
        super().__init__()
        if samples < 1:
            raise UserError(f"loss.samples must be 1 or above, not {samples}")
        self.samples = samples
        self.proposal = proposal
        self.sample: Tensor | None = None
        self.inclusion: Tensor  # [V]: π
        self.register_buffer("inclusion", torch.ones(1), persistent=False)

    def bind(self, spec: OutputSpec) -> None:
        """Take the proposal from the counts; an evaluation, which may have none, does not read it."""
        size = spec.num_classes
        counts = torch.zeros(size) if spec.class_counts is None else spec.class_counts.double().cpu()
        q = counts.double() + 1
        if self.proposal == "log_uniform":
            rank = counts.argsort(descending=True, stable=True).argsort().double()
            q = ((rank + 2) / (rank + 1)).log()
        self.inclusion = _inclusion(q / q.sum(), self.samples).float()

    def draw(self, generator: torch.Generator) -> None:
        chance = torch.rand(len(self.inclusion), generator=generator)
        self.sample = (chance.to(self.inclusion.device) < self.inclusion).nonzero()[:, 0]

    def forward(self, features: Features, projection: Projection) -> LossSum:
        """In training, the loss among a sample of the classes, the same for all positions of an optimizer step; in an
        evaluation cross-entropy."""
        if not self.training:
            return run_softmax(self, features, projection)
        if self.sample is None:  # nobody gives a stream: the global generator's
            self.draw(torch.default_generator)
        execution = Execution(self, features, projection)
        sample, correction = self._corrected(execution.projection.weight.device)
        linear = execution.projection
        few = LinearMap(linear.weight[sample], None if linear.bias is None else linear.bias[sample])

        def add(chunk: Chunk, gradients: Gradients) -> Tensor:
            hidden, target = chunk.features.hidden, chunk.features.target
            of_target = linear.weight[target]
            own = (hidden.float() * of_target.float()).sum(dim=-1) - correction[target]
            if linear.bias is not None:
                own += linear.bias[target].float()
            others = few(hidden).float() - correction[sample]
            others.masked_fill_(sample == target[:, None], -math.inf)
            total = torch.logaddexp(own, others.logsumexp(dim=-1)) if len(sample) else own
            if gradients.needed:
                p = (others - total[:, None]).exp_().mul_(chunk.weight[:, None])
                _add(gradients, chunk, p, chunk.weight * (own - total).expm1(), sample, few.weight, of_target)
            return (chunk.weight * (total - own)).sum()

        return execution.run(add)

    def _corrected(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The sample, and log π [V]."""
        assert self.sample is not None
        return self.sample.to(device), self.inclusion.log().float().to(device)

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)


def _add(
    gradients: Gradients, chunk: Chunk, p: Tensor, slope: Tensor, sample: Tensor, few: Tensor, of_target: Tensor
) -> None:
    """Carry the gradients in the logits of the sample [n, S], `p`, and of the targets [n], `slope`, on.

    Args:
        few: the sample's rows of the weight, [S, D].
        of_target: each target's row, [n, D].
    """
    hidden, target = chunk.features.hidden, chunk.features.target
    rounded = p.to(few.dtype)
    if gradients.hidden is not None:
        gradients.hidden[chunk.rows] = (rounded @ few).float().addcmul_(slope[:, None], of_target.float())
    if gradients.weight is not None:
        gradients.weight.index_add_(0, sample, (rounded.T @ hidden).float())
        gradients.weight.index_add_(0, target, slope[:, None] * hidden.float())
    if gradients.bias is not None:
        gradients.bias.index_add_(0, sample, p.sum(dim=0)).index_add_(0, target, slope)


def _inclusion(q: Tensor, samples: int) -> Tensor:
    """π = 1 − e^{−t q} [V] with the sum `samples`, by bisection; 1 where that is V or more."""
    if samples >= len(q):
        return torch.ones_like(q)
    low, high = 0.0, 1.0
    while -torch.expm1(-high * q).sum() < samples:
        high *= 2
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        low, high = (t, high) if -torch.expm1(-t * q).sum() < samples else (low, t)
    return -torch.expm1(-high * q)
