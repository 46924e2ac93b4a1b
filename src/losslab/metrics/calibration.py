"""Differences of confidence and accuracy: streaming bins, merged to groups of equal mass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BINS = 2**15
GROUPS = 15
_FARTHEST = 16.0
"""Log-odds of the outermost bins: a confidence of 1 − 1e-7."""


def bin_of(log_confidence: Tensor) -> Tensor:
    """int64 [N] in [0, BINS): bins of confidence, even in log-odds, so that they are fine near 0 and near 1."""
    log_p = log_confidence.double().clamp(max=0.0)
    odds = log_p - (-torch.expm1(log_p)).log()
    place = (odds.clamp(-_FARTHEST, _FARTHEST) + _FARTHEST) / (2 * _FARTHEST)
    return (place * BINS).long().clamp(0, BINS - 1)


def log_odds_of(place: int) -> float:
    """The log-odds at which a bin begins; −∞ for the first, which holds all that is smaller."""
    return -math.inf if place == 0 else place / BINS * 2 * _FARTHEST - _FARTHEST


def add_to_bins(sums: Tensor, log_confidence: Tensor, hit: Tensor, weight: Tensor) -> None:
    """Add positions to `sums`, float64 [3, BINS]: weight, weight of hits, weight × confidence."""
    rows = torch.stack([weight, weight * hit, weight * log_confidence.double().exp()])
    sums.index_add_(1, bin_of(log_confidence), rows)


def equal_mass(sums: Tensor, groups: int = GROUPS) -> Tensor:
    """Merge bins [3, BINS] to groups of the same weight [3, groups]; a bin across a border is split in proportion."""
    total = float(sums[0].sum())
    if total == 0:
        return sums.new_zeros(3, groups)
    ends = sums[0].cumsum(0)
    borders = torch.linspace(0, 1, groups + 1, dtype=sums.dtype, device=sums.device) * ends[-1]
    # Cumulative sums at the borders, linear inside a bin: what lies between two borders is their difference.
    after = torch.searchsorted(ends, borders).clamp(max=len(ends) - 1)
    inside = (borders - (ends[after] - sums[0][after])) / sums[0][after].clamp(min=1e-300)
    at_borders = sums.cumsum(1)[:, after] - sums[:, after] * (1 - inside)
    return at_borders.diff(dim=1)


def calibration_error(groups: Tensor) -> float:
    """Σ share of the group · |accuracy − mean confidence|, of groups [3, G] as `equal_mass` gives them."""
    weight, hits, confidence = groups
    return float((hits - confidence).abs().sum() / weight.sum())
