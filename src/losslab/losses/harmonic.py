"""Harmonic loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, OutputSpec, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.chunked_gradients import sum_logits
from losslab.losses.execution import Chunk, Execution, LinearMap
from losslab.losses.gradient_sums import Gradients
from losslab.products import linear

_NEAREST = 1e-6
"""A lower bound of d²: a hidden state on a class's own centre would have an infinite gradient."""


class Harmonic(Loss):
    """Harmonic loss: probabilities from distances to class centres instead of inner products.

    Formula:
        ℓ = −log(d_y^(−n) / Σ_j d_j^(−n)), d_j = ‖h − w_j‖; cross-entropy of the logits z_j = −(n / 2) log d_j².
    Gradient:
        ∂ℓ/∂z_j = p_j − [j = y], p = softmax(z), and ∂z_j/∂h = −n (h − w_j) / d_j².
    Source:
        Baek, Liu, Tyagi & Tegmark 2025, arXiv:2502.01628.
    Use:
        Where weights should be readable as class centres; finite weights reach the optimum.
    Weakness:
        Weight decay moves the centres, and tied weights must serve as inputs and centres both; little tried at scale.
    Prediction:
        softmax(z) of these z.
    Posterior:
        η = p.

    Args:
        exponent: n, above 0; null: √D, as the paper has for language models.
    Raises:
        UserError: for an exponent outside this range.
    """

    per_class = True
    shift_invariant = True
    is_proper = True
    exact_products = True
    forward_sums_scores = True

    def __init__(self, *, exponent: float | None = None) -> None:
        super().__init__()
        if exponent is not None and not 0 < exponent < math.inf:
            raise UserError(f"loss.exponent must be above 0 and finite, not {exponent}")
        self.exponent = exponent

    def bind(self, spec: OutputSpec) -> None:
        if self.exponent is None:
            self.exponent = math.sqrt(spec.hidden_size)

    def adapt(self, hidden: Tensor, projection: Projection) -> tuple[Tensor, Projection]:
        """d² = ‖h‖² − 2 h · w + ‖w‖² as one product, (h, ‖h‖², 1) · (−2 w, 1, ‖w‖²), in float32, for it cancels; a bias
        is one more coordinate of w, where h has 1."""
        dtype = torch.promote_types(projection.weight.dtype, torch.float32)
        hidden, weight = hidden.to(dtype), projection.weight.to(dtype)
        lengths = weight.square().sum(dim=-1, keepdim=True)
        if projection.bias is not None:
            lengths = lengths + (projection.bias.to(dtype)[:, None] - 1).square()
        adapted = torch.cat([-2 * weight, torch.ones_like(lengths), lengths], dim=-1)
        own = hidden.square().sum(dim=-1, keepdim=True)
        return torch.cat([hidden, own, torch.ones_like(own)], dim=-1), LinearMap(adapted, None)

    def forward(self, features: Features, projection: Projection) -> LossSum:
        """Compute what `adapt` leads to without its copy of the weight: the product is of h and w, and the lengths are
        added."""
        execution = Execution(self, features, projection, adapt=False)
        weight, bias = execution.projection
        lengths = weight.square().sum(dim=-1)
        if bias is not None:
            lengths += (bias - 1).square()
        slope = torch.zeros_like(lengths)
        """The gradient of the total in ‖w‖²."""

        def add(chunk: Chunk, gradients: Gradients) -> Tensor:
            hidden = chunk.features.hidden
            gradients.reserve(hidden, weight)
            squares = linear(-2 * hidden, weight, lengths).add_(hidden.square().sum(dim=-1, keepdim=True))
            total = sum_logits(execution, chunk, squares, gradients)
            if gradients.needed:
                slope.add_(squares.sum(dim=0))
                own = squares.sum(dim=-1, keepdim=True)
                minus_two = torch.full_like(own, -2.0)
                gradients.add_logits(chunk.rows, squares, minus_two, hidden, LinearMap(weight, None))
                if gradients.hidden is not None:
                    gradients.hidden[chunk.rows].addcmul_(own, hidden, value=2)
            return total

        def last(gradients: Gradients) -> None:
            if gradients.weight is not None:
                gradients.weight.addcmul_(slope[:, None], weight, value=2)
            if gradients.bias is not None and bias is not None:
                gradients.bias.copy_(2 * slope * (bias - 1))

        return execution.run(add, last)

    def map_logits(self, logits: Tensor) -> Tensor:
        assert self.exponent is not None
        return -self.exponent / 2 * logits.clamp(min=_NEAREST).log()

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)
