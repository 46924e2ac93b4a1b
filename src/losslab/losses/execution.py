"""How a loss is run over the positions of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from losslab.errors import UserError
from losslab.types import Features, LossSum, Projection

if TYPE_CHECKING:
    from losslab.losses.base import Loss


def run_dense(loss: Loss, features: Features, projection: Projection) -> LossSum:
    """All logits at once, of the positions that count. Loss arithmetic is float32 under any autocast."""
    kept = features.kept()
    logits = projection(kept.hidden).float()
    with torch.autocast(device_type=logits.device.type, enabled=False):
        values = loss.position_loss(logits, kept.target)
        if values.shape != kept.target.shape[:1]:
            raise UserError(
                f"{type(loss).__name__}.position_loss returned shape {list(values.shape)} for {len(kept)} positions; "
                "it must return one value for each, unreduced"
            )
        weight = kept.weight.float()
        total = (weight * values).sum()
        share = loss.position_weight(kept.target)
        denominator = weight.sum() if share is None else (weight * share).sum()
    return LossSum(total=total, weight=denominator.detach())
