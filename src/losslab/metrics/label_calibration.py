"""The calibration of predictions of labels: three numbers that the fitting half of val gives, the same for all labels.

A loss of labels may shift all of its outputs: one that weighs positives more, or negatives less, finds every label
likelier than it is. One factor alone could not undo that (a softmax ignores a common shift, a sigmoid does not), so
that s and b of σ(s · z + b) are fitted together (Platt 1999).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Calibrator, Features, LossSum, Projection, no_objective
from losslab.metrics.calibration import BINS, add_to_bins, log_odds_of
from losslab.metrics.class_metrics import scoring_rows
from losslab.metrics.scorer import Scorer

_LOWEST, _HIGHEST, _FARTHEST_SHIFT = 2.0**-10, 2.0**10, 50.0
_TOLERANCE = 1e-7
_MOST_ITERATIONS, _MOST_HALVINGS = 60, 30
_FLAT = 1e-12
_INSIDE = 1e-6
"""Log-odds by which a threshold lies below the bin it begins, so that rounding leaves nothing of that bin out."""


class LabelCalibration(Calibrator):
    """Collects the rows whose `fit` is 1 (all, where nothing says so), and fits scale, shift and threshold on them."""

    names: ClassVar[tuple[str, ...]] = ("scale", "shift", "threshold")

    def __init__(self) -> None:
        self.kept: list[Features] = []

    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        fit = features.extras.get("fit")
        weight = features.weight if fit is None else features.weight * fit
        fitting = Features(features.hidden, features.target, weight)
        self.kept.extend(fitting.kept().chunks(scoring_rows(projection.weight.shape[0])))
        return no_objective(features.hidden)

    @torch.no_grad()
    def finish(self, loss: Scorer, projection: Projection) -> dict[str, float]:
        """`scale` and `shift`: s and b of σ(s · z + b). `threshold`: of the loss's own probabilities, the one above
        which labels hold for the best micro-F1."""
        with torch.autocast(device_type=projection.weight.device.type, enabled=False):
            scale, shift = _fit(self.kept, loss, projection)
            threshold = _threshold(self.kept, loss, projection)
        loss.calibrate(scale)
        return {"scale": scale, "shift": shift, "threshold": threshold}


class _Point(NamedTuple):
    """Σ weight · nll of σ(s · z + b), and its derivatives."""

    value: float
    slope_s: float
    slope_b: float
    ss: float
    sb: float
    bb: float


def _fit(pieces: Iterable[Features], loss: Scorer, projection: Projection) -> tuple[float, float]:
    """Minimise the nll over s in [2⁻¹⁰, 2¹⁰] and b, where it is convex, by Newton's method with halved steps. It begins
    where s · z is of size 1, for a saturated sigmoid has no curvature."""
    scale, shift = _first_scale(pieces, loss, projection), 0.0
    here = _at(pieces, loss, projection, scale, shift)
    for _ in range(_MOST_ITERATIONS):
        step_s, step_b = _step(here, scale)
        for halving in range(_MOST_HALVINGS):
            share = 0.5**halving
            new_scale = min(max(scale + share * step_s, _LOWEST), _HIGHEST)
            new_shift = min(max(shift + share * step_b, -_FARTHEST_SHIFT), _FARTHEST_SHIFT)
            there = _at(pieces, loss, projection, new_scale, new_shift)
            if there.value <= here.value:
                break
        else:
            break
        moved = abs(new_scale - scale) / scale + abs(new_shift - shift)
        scale, shift, here = new_scale, new_shift, there
        if moved < _TOLERANCE:
            break
    return scale, shift


def _first_scale(pieces: Iterable[Features], loss: Scorer, projection: Projection) -> float:
    """The reciprocal of the scores' root mean square, within the bounds; 1 where all are 0."""
    count, square = 0, 0.0
    for piece in pieces:
        z = loss.scores(piece.hidden, projection).double()
        count, square = count + z.numel(), square + float(z.square().sum())
    return min(max(math.sqrt(count / square), _LOWEST), _HIGHEST) if square else 1.0


def _step(here: _Point, scale: float) -> tuple[float, float]:
    """Newton's step; of the shift alone where the scale is at its bound, or makes no difference."""
    shift_alone = -here.slope_b / here.bb if here.bb > 0 else 0.0
    determinant = here.ss * here.bb - here.sb**2
    if not determinant > _FLAT * here.ss * here.bb:
        return 0.0, shift_alone
    step_s = (here.sb * here.slope_b - here.bb * here.slope_s) / determinant
    step_b = (here.sb * here.slope_s - here.ss * here.slope_b) / determinant
    stuck = (scale <= _LOWEST and step_s < 0) or (scale >= _HIGHEST and step_s > 0)
    return (0.0, shift_alone) if stuck else (step_s, step_b)


def _at(pieces: Iterable[Features], loss: Scorer, projection: Projection, scale: float, shift: float) -> _Point:
    sums = torch.zeros(6, dtype=torch.float64)
    for piece in pieces:
        z, y = loss.scores(piece.hidden, projection).double(), piece.target.double()
        weight = piece.weight.double()[:, None]
        x = scale * z + shift
        p = x.sigmoid()
        error, spread = weight * (p - y), weight * p * (1 - p)
        parts = (weight * (F.softplus(x) - y * x), error * z, error, spread * z * z, spread * z, spread)
        sums += torch.stack([part.sum() for part in parts]).cpu()
    return _Point(*sums.tolist())


def _threshold(pieces: Iterable[Features], loss: Scorer, projection: Projection) -> float:
    """t of p > t with the best micro-F1, to a bin of log-odds; 0.5 where nothing is positive."""
    bins = torch.zeros(3, BINS, dtype=torch.float64)
    for piece in pieces:
        log_p = loss.predict_log_probs(loss.scores(piece.hidden, projection).double()).cpu()
        weight = piece.weight.double().cpu()[:, None].expand_as(log_p)
        add_to_bins(bins, log_p.flatten(), piece.target.double().cpu().flatten(), weight.flatten())
    predicted, hits = (row.flip(0).cumsum(0) for row in bins[:2])
    if not float(hits[-1]):
        return 0.5
    f1: Tensor = 2 * hits / (predicted + hits[-1])
    odds = log_odds_of(BINS - 1 - int(f1.argmax()))
    return 1 / (1 + math.exp(-(odds - _INSIDE)))
