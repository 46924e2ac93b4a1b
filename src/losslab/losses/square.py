"""Square loss for classification."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.execution import Chunk, Execution
from losslab.losses.gradient_sums import Gradients
from losslab.products import add_product, product


class Square(Loss):
    """Square loss: regression of raw scores to M at the target and 0 elsewhere, without a softmax.

    Formula:
        ℓ = (1 / V) [k (f_y − M)² + Σ_{j≠y} f_j²] of raw scores f.
    Gradient:
        ∂ℓ/∂f_y = 2 k (f_y − M) / V, and ∂ℓ/∂f_j = 2 f_j / V for the others.
    Source:
        Hui & Belkin 2020, arXiv:2006.07322; without logits: an idea of Vincent et al. 2014, arXiv:1412.7091.
    Use:
        To ask whether softmax is needed at all; by far the cheapest with many classes, for no logits exist. k = 1,
        M = 1 for few classes, larger ones for many: k = 15, M = 30 for the 1,000 of ImageNet.
    Weakness:
        The scores are no log-probabilities, and say little about them until they are scaled. It needs a learning rate,
        k and M of its own: 1 / V makes the gradient small where V is large.
    Prediction:
        softmax(s · f), with the scale s that nll_scaled fits on half of the validation set (1 before the first fit).
    Posterior:
        η_j = f_j / (k M − (k − 1) f_j), of scores clipped to [0, M], where η is 0 and 1.

    Args:
        k: weight of the target's own score, above 0.
        m: the value M that the target's score should have, above 0.
    Raises:
        UserError: for values outside these ranges.
    """

    cost_class = "F5"
    agrees = False
    forward_sums_scores = True

    def __init__(self, *, k: float = 15.0, m: float = 30.0) -> None:
        super().__init__()
        if not 0 < k < math.inf:
            raise UserError(f"loss.k must be above 0 and finite, not {k}")
        if not 0 < m < math.inf:
            raise UserError(f"loss.m must be above 0 and finite, not {m}")
        self.k = k
        self.m = m
        self.prediction_scale: Tensor
        self.register_buffer("prediction_scale", torch.ones(()))

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        f_y = logits.gather(-1, target[:, None])[:, 0]
        return (self.k * (f_y - self.m) ** 2 + logits.square().sum(dim=-1) - f_y**2) / logits.shape[-1]

    def forward(self, features: Features, projection: Projection) -> LossSum:
        """Sum without logits: Σ_j f_j² = hᵀGh + 2 h · Wᵀb + ‖b‖² with G = WᵀW, in O((N + V) D²) instead of O(N V D)
        (an idea of Vincent et al. 2014, arXiv:1412.7091)."""
        execution = Execution(self, features, projection, rows=None)
        weight = execution.projection.weight  # a GPU multiplies bfloat16 quickly, and sums in float32
        weight = weight if weight.is_cuda and weight.dtype == torch.bfloat16 else projection.weight.detach().float()
        bias = None if projection.bias is None else projection.bias.detach().float()
        scale = 1 / len(weight)

        def add(chunk: Chunk, gradients: Gradients) -> Tensor:
            hidden, target, share = chunk.features.hidden.to(weight.dtype), chunk.features.target, scale * chunk.weight
            own = weight[target].float()
            f_y = (hidden * own).sum(dim=-1)
            half = product(hidden, product(weight.T, weight).to(weight.dtype))  # of the gradient of Σ_j f_j² in h
            if bias is None:
                squares = (half * hidden).sum(dim=-1)
            else:
                f_y += bias[target]
                folded = bias @ weight.float()
                half += folded
                squares = ((half + folded) * hidden).sum(dim=-1) + bias.square().sum()
            total = (share * (self.k * (f_y - self.m) ** 2 - f_y**2 + squares)).sum()
            slope = 2 * share * (self.k * (f_y - self.m) - f_y)
            if gradients.hidden is not None:
                gradients.hidden += half.mul_(2 * share[:, None]).addcmul_(slope[:, None], own)
            if gradients.weight is not None:
                weighted = 2 * share[:, None] * hidden
                between = product(weighted.T.to(weight.dtype), hidden)
                add_product(gradients.weight, weight, between.to(weight.dtype))
                gradients.weight.index_add_(0, target, slope[:, None] * hidden)
                if bias is not None:
                    gradients.weight.addr_(bias, weighted.sum(dim=0))
            if gradients.bias is not None and bias is not None:
                gradients.bias += 2 * (weight.float() @ (share @ hidden.float()) + share.sum() * bias)
                gradients.bias.index_add_(0, target, slope)
            return total

        return execution.run(add)

    def calibrate(self, scale: float) -> None:
        self.prediction_scale.fill_(scale)

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return (self.prediction_scale * logits).log_softmax(dim=-1)

    def softmax_factor(self) -> float | None:
        own = type(self).predict_log_probs is Square.predict_log_probs
        return self.prediction_scale.item() if own else super().softmax_factor()

    def posterior(self, logits: Tensor) -> Tensor:
        """The minimiser is f_j = k M η_j / (1 + (k − 1) η_j), solved for η.

        η in [0, 1] is f in [0, M]; scores outside are clipped to it.
        """
        f = logits.clamp(0.0, self.m)
        return f / (self.k * self.m - (self.k - 1) * f)
