"""The three ways to a chunk's value and gradient: from the softmax alone, by autograd down to the logits, by autograd
down to everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from losslab.contracts import Features, LossSum, Projection, Values, added
from losslab.losses.contract import RunnableLoss
from losslab.losses.execution import Chunk, Execution, LinearMap, feature_rows, graph_rows
from losslab.losses.gradient_sums import Gradients
from losslab.losses.softmax_stats import SoftmaxStats
from losslab.losses.targets import check_targets

_TINY = 1e-30
"""Numbers below are close to the smallest that float32 holds."""
_WAYS_OF_SOFTMAX = ("from_log_prob", "from_statistics")


def run_softmax(loss: RunnableLoss, features: Features, projection: Projection) -> LossSum:
    """Run a function of z_y, logsumexp z and u · z. Autograd sees three numbers a position; the gradient in the logits
    is b p + a e_y + c u, of which only p, written over z, has N × V entries.

    u · z = h · (Wᵀu) is one matrix-vector product, so label smoothing costs no pass over the logits.
    """
    execution = Execution(loss, features, projection)
    folded = _fold(loss, execution.projection)
    return execution.run(
        lambda chunk, gradients: sum_softmax(execution, chunk, gradients, loss.from_statistics, *folded)
    )


def sum_softmax(
    execution: Execution,
    chunk: Chunk,
    gradients: Gradients,
    formula: Callable[[SoftmaxStats], Values],
    u: Tensor | None = None,
    folded: Tensor | None = None,
) -> Tensor:
    """Σ weight · loss of a chunk, by a function of the statistics of its logits.

    Args:
        u: [V], where the function reads u · z.
        folded: [D]: Wᵀu.
    """
    linear, scale = execution.projection, 1 / execution.loss.temperature
    hidden, target = chunk.features.hidden, chunk.features.target[:, None]
    logits = execution.logits(chunk, gradients)
    if logits.dtype == torch.bfloat16:
        p, leaves, p_y = _softmax_in_bf16(logits, target, scale)
    elif logits.is_cpu:
        p, leaves, p_y = _softmax_in_one_pass(logits, target, scale, lambda rows: linear(hidden[rows]))
    else:
        p, leaves, p_y = _softmax(logits, target, scale)
    if u is not None and folded is not None:
        shift = 0.0 if linear.bias is None else linear.bias.float() @ u
        leaves["linear"] = scale * (hidden.float() @ folded + shift)
    with torch.set_grad_enabled(gradients.needed):
        for leaf in leaves.values():
            leaf.requires_grad_(gradients.needed)
        total = execution.weigh(chunk, formula(SoftmaxStats(len(linear.weight), target[:, 0], **leaves)))
    if gradients.needed:
        a, b, *c = execution.differentiate(total, list(leaves.values()), gradients)
        # b p + a e_y = b (p + (a / b) e_y); a / b is -1 for a function of log p_y, whatever b: exact near p_y = 1.
        b = torch.where(b == 0, _TINY, b)
        own = p_y + (a / b)[:, None]
        p.scatter_(-1, target, own.to(p.dtype))
        gradients.add_logits(chunk.rows, p, scale * b[:, None], hidden, linear)
        if c and u is not None and folded is not None:
            gradients.add_linear(chunk.rows, scale * c[0], hidden, u, folded)
    return total.detach()


def _softmax(logits: Tensor, target: Tensor, scale: float) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """p = softmax(scale · z) [n, V] over the logits' place, z_y and logsumexp [n] by name, and p_y [n, 1], in
    float32."""
    logits = logits.float()
    if scale != 1:
        logits *= scale
    largest = logits.amax(dim=-1)
    target_logit = logits.gather(-1, target)[:, 0]
    p = torch.softmax(logits, dim=-1, out=logits)
    logsumexp = largest - p.amax(dim=-1).log()  # the largest p is at least 1 / V
    return p, {"target_logit": target_logit, "logsumexp": logsumexp}, p.gather(-1, target)


def _softmax_in_one_pass(
    logits: Tensor, target: Tensor, scale: float, recompute: Callable[[Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The same without looking for the largest entries, two passes that take as long as the softmax: logsumexp is
    z_y − log p_y. Rows where p_y has underflowed need the largest entry, and are computed again by `recompute`. To ask
    whether there are any would make a GPU wait."""
    logits = logits.float()
    if scale != 1:
        logits *= scale
    target_logit = logits.gather(-1, target)[:, 0]
    p = torch.softmax(logits, dim=-1, out=logits)
    p_y = p.gather(-1, target)
    logsumexp = target_logit - p_y[:, 0].log()
    faint = (p_y[:, 0] < _TINY).nonzero()[:, 0]
    if len(faint) > 0:
        largest = scale * recompute(faint).float().amax(dim=-1)
        logsumexp[faint] = largest - p[faint].amax(dim=-1).log()
    return p, {"target_logit": target_logit, "logsumexp": logsumexp}, p_y


def _softmax_in_bf16(logits: Tensor, target: Tensor, scale: float) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The same in fewer passes over [n, V], which are most of the time on a GPU; p is rounded to bfloat16, as its
    products would round it, and the numbers of a position are not. float16 could not hold p beside every a / b."""
    if scale == 1:
        target_logit = logits.gather(-1, target).float()
        log_p = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    else:
        scaled = logits.float().mul_(scale)
        target_logit = scaled.gather(-1, target)
        log_p = torch.log_softmax(scaled, dim=-1)
    own = log_p.gather(-1, target)
    leaves = {"target_logit": target_logit[:, 0], "logsumexp": (target_logit - own)[:, 0]}
    return torch.exp(log_p, out=logits), leaves, own.exp()


def _fold(loss: RunnableLoss, linear: LinearMap) -> tuple[Tensor | None, Tensor | None]:
    """u and Wᵀu, where the loss has a u."""
    u = loss.linear_weights(len(linear.weight))
    if u is None:
        return None, None
    u = u.float().to(linear.weight.device)
    with torch.autocast(device_type=u.device.type, enabled=False):
        return u, u @ linear.weight.float()


def run_logits(loss: RunnableLoss, features: Features, projection: Projection) -> LossSum:
    """Run any function of a position's logits and features: autograd goes down to the logits, a few at a time, whose
    gradient takes their place; two products of the whole chunk go on from there."""
    execution = Execution(loss, features, projection)
    linear = execution.projection

    def add(chunk: Chunk, gradients: Gradients) -> Tensor:
        logits = execution.logits(chunk, gradients).float()
        total = sum_logits(execution, chunk, logits, gradients)
        if gradients.needed:
            one = torch.ones_like(logits[:, :1])
            gradients.add_logits(chunk.rows, logits, one, chunk.features.hidden, linear)
        return total

    return execution.run(add)


def sum_logits(execution: Execution, chunk: Chunk, logits: Tensor, gradients: Gradients) -> Tensor:
    """Σ weight · loss of a chunk's logits [n, V], whose place the gradient in them takes, where one is needed."""
    loss, total = execution.loss, logits.new_zeros(())
    for piece in chunk.slices(execution.slice_rows):
        with torch.set_grad_enabled(gradients.needed):
            leaf = logits[piece.rows].detach().requires_grad_(gradients.needed)
            part = execution.weigh(piece, loss.from_logits(loss.map_logits(leaf), piece.features))
        if gradients.needed:
            (logits[piece.rows],) = execution.differentiate(part, [leaf], gradients)
        total += part.detach()
    return total


def run_features(loss: RunnableLoss, features: Features, projection: Projection) -> LossSum:
    """Run a loss with scores of its own, or one that reads more than its logits: autograd goes down to hidden states
    and weights."""
    execution = Execution(loss, features, projection, rows=feature_rows, adapt=False)

    def add(chunk: Chunk, gradients: Gradients) -> Tensor:
        on, seen, given = gradients.needed, chunk.features, execution.projection
        with torch.set_grad_enabled(on):
            hidden = seen.hidden.detach().requires_grad_(on)
            weight = given.weight.detach().requires_grad_(on)
            bias = None if given.bias is None else given.bias.detach().requires_grad_(on)
            own = replace(seen, hidden=hidden)
            total = execution.weigh(chunk, loss.values(own, LinearMap(weight, bias)))
        if on:
            leaves = [hidden, weight] + ([] if bias is None else [bias])
            of_hidden, of_weight, *of_bias = execution.differentiate(total, leaves, gradients)
            if gradients.hidden is not None:
                gradients.hidden[chunk.rows] = of_hidden
            if gradients.weight is not None:
                gradients.weight.add_(of_weight)
            if gradients.bias is not None:
                gradients.bias += of_bias[0]
        return total.detach()

    return execution.run(add)


def sum_scores(loss: RunnableLoss, features: Features, logits: Tensor, logsumexp: Tensor | None) -> LossSum:
    """Sum the loss of scores that have been made already, without a gradient; see `Loss.from_scores`."""
    check_targets(features.target, loss, logits.shape[-1])
    features = loss.select(features)
    counts = features.weight != 0
    if not bool(counts.all()):
        places = features.places(counts)
        features, logits = features[counts], logits[places]
        logsumexp = None if logsumexp is None else logsumexp[places]
    weight, share = features.weight.float(), loss.position_weight(features)
    if loss.written_as() not in _WAYS_OF_SOFTMAX or logsumexp is None:
        values: Values = _in_slices(loss, features, logits)
    else:
        target, u, scale = features.target, loss.linear_weights(logits.shape[-1]), 1 / loss.temperature
        own = scale * logits.gather(-1, target[:, None])[:, 0]
        linear = None if u is None else scale * (logits @ u.to(logits))
        values = loss.from_statistics(SoftmaxStats(logits.shape[-1], target, own, logsumexp, linear))
    return LossSum(
        total=(weight * added(values)).sum(), weight=weight.sum() if share is None else (weight * share).sum()
    )


def _in_slices(loss: RunnableLoss, features: Features, logits: Tensor) -> Tensor:
    """The loss [N] of each position, computed from a few positions' logits at a time, so that they stay in a cache."""
    size = graph_rows(logits.shape[-1], logits.device)
    if len(features) <= size:
        return added(loss.from_logits(logits, features))
    pieces = zip(torch.split(logits, size), features.chunks(size), strict=True)
    return torch.cat([added(loss.from_logits(z, part)) for z, part in pieces])
