"""How well scores rank positives above negatives: average precision and the area under the ROC curve, exactly.

The definitions are those of scikit-learn's `average_precision_score` (a step function, no interpolation) and
`roc_auc_score`; tied scores are one threshold.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def average_precision_and_auroc(scores: Tensor, positive: Tensor, weight: Tensor) -> tuple[float, float]:
    """Both for one label.

    Args:
        scores: [N], the larger the likelier.
        positive: bool [N].
        weight: float64 [N].

    Returns:
        NaN where a score is NaN, and where they are not defined: average precision without a positive, the area without
        a positive or without a negative.
    """
    if bool(scores.isnan().any()):
        return math.nan, math.nan
    order = scores.argsort(descending=True, stable=True)
    ranked = scores[order]
    last = torch.ones(len(ranked), dtype=torch.bool, device=ranked.device)
    last[:-1] = ranked[1:] != ranked[:-1]
    hits = (weight * positive)[order].cumsum(0)[last]
    others = (weight * ~positive)[order].cumsum(0)[last]
    if not len(hits) or not (total := float(hits[-1])):
        return math.nan, math.nan
    new_hits = hits.diff(prepend=hits.new_zeros(1))
    precision = float((new_hits * hits / (hits + others)).sum()) / total
    if not (negatives := float(others[-1])):
        return precision, math.nan
    new_others = others.diff(prepend=others.new_zeros(1))
    return precision, float((new_others * (hits - new_hits / 2)).sum()) / (total * negatives)
