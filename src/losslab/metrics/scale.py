"""The one temperature of nll_scaled: the s that makes softmax(s · z) predict best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
    sample: Features | None = None,
    most: int = _MOST_PASSES,
) -> float:
    """Minimise the mean of −log softmax(s · z)_y over s in [2⁻¹⁰, 2¹⁰].

    A pass over the logits gives six derivatives in s. The next s is the root of the Taylor series of the first, or,
    where the series is of no use so far from the minimum, the step of Newton's method in log s inside a bracket. The
    mean is convex in s, so the bracket always holds the minimum.

    Args:
        pieces: the positions to fit on, in chunks; logits are computed again for each pass, never kept.
        sample: positions to fit on beside those of the pieces. Their logits are kept, and s is found roughly on them
            before the first pass over all positions.
        most: passes.

    Returns:
        s; 1 where nothing depends on it (no positions, or logits that are all equal).
    """
    scored = _Scored(pieces, loss, projection, sample)
    start = 0.0 if sample is None else _minimise(scored.sampled, 0.0, tolerance=_ROUGH, most=most)
    # A sample that is always right, or always wrong, has its minimum at a bound: all positions seldom have.
    start = start if abs(start) < _BOUND / 2 else 0.0
    return math.exp(_minimise(scored.all, start, tolerance=_TOLERANCE, most=most))


class _Scored:
    """Positions whose derivatives are summed: those of a sample from logits that are kept, the others from new ones."""

    def __init__(
        self, pieces: Sequence[Features], loss: Scorer, projection: Projection, sample: Features | None
    ) -> None:
        self._pieces, self._loss, self._projection = pieces, loss, projection
        self._sample = None if sample is None else (loss.scores(sample.hidden, projection), sample.target)

    def sampled(self, s: float) -> Tensor:
        """The sums of `_derivatives` over the sample."""
        if self._sample is None:
            return torch.zeros(_ORDER, dtype=torch.float64, device=self._projection.weight.device)
        return _derivatives(*self._sample, s)

    def all(self, s: float) -> Tensor:
        """Those over all positions."""
        total = self.sampled(s)
        for piece in self._pieces:
            total += _derivatives(self._loss.scores(piece.hidden, self._projection), piece.target, s)
        return total


def _minimise(derivatives: Callable[[float], Tensor], log_s: float, *, tolerance: float, most: int) -> float:
    """log s of the minimum of what has these derivatives in s, found from `log_s` on."""
    low, high = -_BOUND, _BOUND
    for _ in range(most):
        s = math.exp(log_s)
        slope, *others = [s**k * total for k, total in enumerate(derivatives(s).tolist(), start=1)]
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


def _derivatives(logits: Tensor, target: Tensor, s: float) -> Tensor:
    """float64 [K]: the k-th derivative in s of the summed nll, k from 1 on: the k-th cumulant of z under
    softmax(s · z), of which the first is counted from z_y. Logits [n, V], target [n]."""
    largest, moments = _moments(logits, s)
    if bool(moments.isnan().any()):  # a logit of −inf has no probability, and must not make 0 · inf of it
        largest, moments = _moments(logits.clamp(min=_FARTHEST), s)
    cumulants = _cumulants(moments[1:].double() / moments[0].double())
    cumulants[0] += (largest - logits.gather(-1, target[:, None])[:, 0]).double()
    return cumulants.sum(dim=1)


def _moments(logits: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """The largest logit [n], and with x = z − max z the sums [1 + K, n] of exp(s · x) · xᵏ, k from 0 on. Relative to
    the largest: a common shift of the scores changes nothing, and must not cost the digits that matter."""
    rows = piece_rows(logits.shape[-1], logits.device)
    work = logits.new_empty(2, min(rows, len(logits)), logits.shape[-1])
    largest, moments = logits.new_empty(len(logits)), logits.new_empty(1 + _ORDER, len(logits))
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        z = logits[part]
        x, p = work[:, : len(z)]
        torch.sub(z, torch.amax(z, dim=-1, out=largest[part])[:, None], out=x)
        torch.sum(exponential(x, s, out=p), dim=-1, out=moments[0, part])
        for moment in moments[1:]:
            torch.sum(p.mul_(x), dim=-1, out=moment[part])
    return largest, moments


def _cumulants(moments: Tensor) -> Tensor:
    """Cumulants [K, N] from the moments about 0 [K, N], each from the first to the K-th."""
    found: list[Tensor] = []
    for n, moment in enumerate(moments):
        others = (math.comb(n, k) * found[k] * moments[n - 1 - k] for k in range(n))
        found.append(moment - sum(others, torch.zeros_like(moment)))
    return torch.stack(found)
