"""Outputs that only training makes of a position, beside those that it is judged by: of other hidden states under the
same projection, or of the same hidden states under another projection. Each is made, differentiated and dropped before
the next, so that there is one chunk of logits at a time (Gloeckle et al. 2024, arXiv:2404.19737, section 2)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from losslab.contracts import Values
from losslab.losses.chunked_gradients import sum_softmax
from losslab.losses.execution import Chunk, Execution, LinearMap
from losslab.losses.gradient_sums import Gradients, WeightSum
from losslab.losses.softmax_stats import SoftmaxStats


def sum_of_states(
    execution: Execution,
    chunk: Chunk,
    gradients: Gradients,
    change: Callable[[Tensor], Tensor],
    target: Tensor,
    formula: Callable[[SoftmaxStats], Values],
) -> Tensor:
    """Σ weight · loss of a chunk's changed hidden states, under the projection that its own go through.

    Args:
        change: hidden states [n, D] → [n, D], by parameters of the loss.
        target: int [n]; -1 where a position has none, and no share in the sum.
        formula: as of `sum_softmax`.
    """
    with torch.set_grad_enabled(gradients.needed):
        leaf = chunk.features.hidden.detach().requires_grad_(gradients.needed)
        hidden = change(leaf)
    weight = chunk.weight * (target >= 0)
    features = replace(chunk.features, hidden=hidden.detach(), target=target.long().clamp(min=0), weight=weight)
    own = _beside(gradients, hidden)
    total = sum_softmax(execution, Chunk(slice(0, len(weight)), features, weight), own, formula)
    if gradients.needed:
        assert own.hidden is not None
        with torch.enable_grad():
            product = (hidden.float() * own.hidden).sum()
        (of_hidden,) = execution.differentiate(product, [leaf], gradients)
        if gradients.hidden is not None:
            gradients.hidden[chunk.rows] += of_hidden
    return total


def sum_of_projection(
    execution: Execution,
    chunk: Chunk,
    gradients: Gradients,
    weight: Tensor,
    targets: tuple[Tensor, Tensor],
    term: tuple[str, float],
) -> Tensor:
    """Σ weight · cross-entropy of a chunk's hidden states under a projection of the loss's own, to distributions that
    give most classes nothing.

    Args:
        weight: [V, D], a parameter of the loss.
        targets: float32 [n, K], the shares of some classes, which sum to 1, and int64 [n, K], those classes. One that
            stands there twice has the sum of both shares.
        term: the name of the loss's term, and what it is multiplied by.
    """
    (share, classes), (name, factor), hidden = targets, term, chunk.features.hidden
    linear = LinearMap(weight.detach().to(hidden.dtype), None)
    logits = linear(hidden).float()
    largest = logits.amax(dim=-1)
    chosen = (share * logits.gather(-1, classes)).sum(dim=-1)
    p = torch.softmax(logits, dim=-1, out=logits)
    logsumexp = largest - p.amax(dim=-1).log()
    total = execution.weigh(chunk, {name: factor * (logsumexp - chosen)})
    if gradients.needed:
        p.scatter_add_(-1, classes, -share)
        own = _beside(gradients, hidden)
        total_of_weight = _of_parameter(execution, gradients, weight)
        own.weight_sum = None if total_of_weight is None else WeightSum(weight, total_of_weight)
        own.bias = None
        own.add_logits(slice(0, len(hidden)), p, factor * chunk.weight[:, None], hidden, linear)
        if gradients.hidden is not None and own.hidden is not None:
            gradients.hidden[chunk.rows] += own.hidden
    return total


def _beside(gradients: Gradients, hidden: Tensor) -> Gradients:
    """The same sums, but for a gradient in other hidden states [n, D]."""
    own = copy.copy(gradients)
    own.hidden = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device) if gradients.needed else None
    return own


def _of_parameter(execution: Execution, gradients: Gradients, weight: Tensor) -> Tensor | None:
    """The gradient in a parameter of the loss; None where it is not trained."""
    return next((g for p, g in zip(execution.parameters, gradients.parameters, strict=True) if p is weight), None)
