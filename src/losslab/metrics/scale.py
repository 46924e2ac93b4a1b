"""The one temperature of nll_scaled: the s that makes softmax(s · z) predict best."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from losslab.contracts import Features, Projection
from losslab.metrics.rows import exponential, piece_rows
from losslab.metrics.scorer import Scorer

_BOUND = 10 * math.log(2)
_TOLERANCE = 1e-6
_MOST_ITERATIONS = 60
_FARTHEST = -1e15


@torch.no_grad()
def fit_scale(pieces: list[Features], loss: Scorer, projection: Projection, *, most: int = _MOST_ITERATIONS) -> float:
    """Minimise the mean of −log softmax(s · z)_y over s in [2⁻¹⁰, 2¹⁰], by Newton's method in log s inside a bracket.

    The mean is convex in s, so the bracket always holds the minimum.

    Args:
        pieces: the positions to fit on, in chunks; logits are computed again for each, never kept.
        most: iterations.

    Returns:
        s; 1 where nothing depends on it (no positions, or logits that are all equal).
    """
    low, high, log_s = -_BOUND, _BOUND, 0.0
    for _ in range(most):
        slope, curvature = _derivatives(pieces, loss, projection, math.exp(log_s))
        if slope == 0.0:
            break
        low, high = (low, log_s) if slope > 0 else (log_s, high)
        newton = log_s - slope / curvature if curvature > 0 else math.inf
        step_to = newton if low < newton < high else (low + high) / 2
        done = abs(step_to - log_s) < _TOLERANCE
        log_s = step_to
        if done:
            break
    return math.exp(log_s)


def _derivatives(pieces: Iterable[Features], loss: Scorer, projection: Projection, s: float) -> tuple[float, float]:
    """First and second derivative of the summed nll in log s: s (E_p z − z_y), and that plus s² Var_p z."""
    first = second = 0.0
    for piece in pieces:
        logits = loss.scores(piece.hidden, projection)
        rows = piece_rows(logits.shape[-1], logits.device)
        work = logits.new_empty(2, min(rows, len(logits)), logits.shape[-1])
        for start in range(0, len(logits), rows):
            z = logits[start : start + rows]
            p, difference = work[:, : len(z)]
            largest, own = z.amax(dim=-1, keepdim=True), z.gather(-1, piece.target[start : start + rows, None])
            # Relative to the largest: a common shift of the scores changes nothing, and must not cost the digits that
            # matter. One that is −inf has no probability, and must not make 0 · inf of it.
            torch.sub(z, largest, out=difference).clamp_(min=_FARTHEST)
            total = exponential(difference, s, out=p).sum(dim=-1).double()
            mean = p.mul_(difference).sum(dim=-1).double() / total
            square = p.mul_(difference).sum(dim=-1).double() / total
            first += s * (mean + (largest - own)[:, 0].double()).sum().item()
            second += s * s * (square - mean.square()).sum().item()
    return first, first + second
