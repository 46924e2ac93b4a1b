"""The one temperature of nll_scaled: the s that makes softmax(s · z) predict best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from losslab.contracts import Features, Projection
from losslab.metrics.rows import exponential, piece_rows
from losslab.metrics.scorer import Scorer

_BOUND = 10 * math.log(2)
_TOLERANCE, _ROUGH = 1e-6, 3e-3
"""The error in log s that a fit leaves, and that of the fit to a sample from which it starts."""
_MOST_PASSES = 60
_ORDER = 6
"""Derivatives that a pass over the logits gives: they cost little beside the product that makes the logits."""
_SURE = 0.1
"""The error of a root, as a share of the way to it, above which the derivatives say too little about the way."""
_MOST_ITERATIONS = 30
_FARTHEST = -1e15


@torch.no_grad()
def fit_scale(
    pieces: Sequence[Features],
    loss: Scorer,
    projection: Projection,
    *,
    sample: Sequence[Features] = (),
    most: int = _MOST_PASSES,
) -> float:
    """Minimise the mean of −log softmax(s · z)_y over s in [2⁻¹⁰, 2¹⁰].

    A pass over the logits gives six derivatives in s. The next s is the root of the Taylor series of the first, or,
    where the series is of no use so far from the minimum, the step of Newton's method in log s inside a bracket. The
    mean is convex in s, so the bracket always holds the minimum.

    Args:
        pieces: the positions to fit on, in chunks; logits are computed again for each pass, never kept.
        sample: a part of these positions, on which s is found roughly before the first pass over all of them.
        most: passes.

    Returns:
        s; 1 where nothing depends on it (no positions, or logits that are all equal).
    """
    start = _minimise(sample, loss, projection, 0.0, tolerance=_ROUGH, most=most) if sample else 0.0
    # A sample that is always right, or always wrong, has its minimum at a bound: all positions seldom have.
    start = start if abs(start) < _BOUND / 2 else 0.0
    return math.exp(_minimise(pieces, loss, projection, start, tolerance=_TOLERANCE, most=most))


def _minimise(
    pieces: Sequence[Features], loss: Scorer, projection: Projection, log_s: float, *, tolerance: float, most: int
) -> float:
    """log s of the minimum, found from `log_s` on."""
    low, high = -_BOUND, _BOUND
    for _ in range(most):
        slope, *others = _derivatives(pieces, loss, projection, math.exp(log_s))
        if slope == 0.0:
            break
        low, high = (low, log_s) if slope > 0 else (log_s, high)
        step, error = _step([slope, *others])
        if not low < log_s + step < high:
            step = (low + high) / 2 - log_s
            error = abs(step)
        log_s += step
        if error < tolerance:
            break
    return log_s


def _step(slopes: list[float]) -> tuple[float, float]:
    """The step in log s to the minimum, and a bound of how far from the minimum it ends."""
    terms = [slope / math.factorial(k) for k, slope in enumerate(slopes)]
    roots = [_root(terms[:count]) for count in range(len(terms) - 2, len(terms) + 1)]
    if min(roots) > -1:
        # The term that is left out moves the root less than the last one did. Two series may meet by chance.
        first, second, step = (math.log1p(root) for root in roots)
        error = max(abs(step - second), abs(step) * abs(second - first))
        if error < _SURE * abs(step):
            return step, error
    curvature = slopes[0] + slopes[1]  # in log s
    step = -slopes[0] / curvature if curvature > 0 else math.inf
    return step, abs(step)


def _root(terms: list[float]) -> float:
    """The root next to 0 of Σ terms_k uᵏ, by Newton's method; NaN where it finds none."""
    u = 0.0
    for _ in range(_MOST_ITERATIONS):
        value = slope = 0.0
        for term in reversed(terms):
            value, slope = value * u + term, slope * u + value
        if not slope > 0:
            return math.nan
        u -= value / slope
        if abs(value) < 1e-15 * abs(terms[0]):
            break
    return u


def _derivatives(pieces: Sequence[Features], loss: Scorer, projection: Projection, s: float) -> list[float]:
    """sᵏ times the k-th derivative in s of the summed nll, k from 1 on: sᵏ times the k-th cumulant of z under
    softmax(s · z), of which the first is counted from z_y."""
    sums = torch.zeros(_ORDER, dtype=torch.float64, device=projection.weight.device)
    for piece in pieces:
        logits = loss.scores(piece.hidden, projection)
        rows = piece_rows(logits.shape[-1], logits.device)
        work = logits.new_empty(2, min(rows, len(logits)), logits.shape[-1])
        own, largest = logits.gather(-1, piece.target[:, None])[:, 0], logits.new_empty(len(logits))
        moments = logits.new_empty(1 + _ORDER, len(logits))
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            z = logits[part]
            p, difference = work[:, : len(z)]
            torch.amax(z, dim=-1, out=largest[part])
            # Relative to the largest: a common shift of the scores changes nothing, and must not cost the digits that
            # matter. One that is −inf has no probability, and must not make 0 · inf of it.
            torch.sub(z, largest[part, None], out=difference).clamp_(min=_FARTHEST)
            torch.sum(exponential(difference, s, out=p), dim=-1, out=moments[0, part])
            for moment in moments[1:]:
                torch.sum(p.mul_(difference), dim=-1, out=moment[part])
        cumulants = _cumulants(moments[1:].double() / moments[0].double())
        cumulants[0] += (largest - own).double()
        sums += cumulants.sum(dim=1)
    return [s**k * total for k, total in enumerate(sums.tolist(), start=1)]


def _cumulants(moments: Tensor) -> Tensor:
    """Cumulants [K, N] from the moments about 0 [K, N], each from the first to the K-th."""
    found: list[Tensor] = []
    for n, moment in enumerate(moments):
        others = (math.comb(n, k) * found[k] * moments[n - 1 - k] for k in range(n))
        found.append(moment - sum(others, torch.zeros_like(moment)))
    return torch.stack(found)
