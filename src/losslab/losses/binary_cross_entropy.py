"""Binary cross-entropy for labels that do not exclude one another."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss


class BinaryCrossEntropy(Loss):
    """Binary cross-entropy: every class is a yes-or-no question of its own.

    Formula:
        ℓ = −Σ_j [w y_j log s(z_j) + (1 − y_j) log s(−z_j)], s(z) = 1 / (1 + e^{−z}), of labels y_j in [0, 1]; the sum
        over the V classes, not their mean.
    Gradient:
        ∂ℓ/∂z_j = (1 − y_j) s(z_j) − w y_j s(−z_j); for w = 1, s(z_j) − y_j
    Source:
        Cox 1958, "The regression analysis of binary sequences".
    Use:
        For positions with any number of labels, tags or soft votes. A w above 1 makes rare labels be found more often.
    Weakness:
        With many classes most terms are easy negatives, whose gradients together outweigh the few positives.
    Prediction:
        log s(z_j) of each class; these probabilities do not sum to 1.
    Posterior:
        η_j = s(z_j − log w), the probability of label j; for w = 1 the prediction itself.

    Args:
        positive_weight: w, above 0: how much a label that is present counts beside one that is absent.
    Raises:
        UserError: for a weight outside this range.
    """

    target_kind = TargetKind.LABELS

    def __init__(self, *, positive_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 < positive_weight < math.inf:
            raise UserError(f"loss.positive_weight must be above 0 and finite, not {positive_weight}")
        self.positive_weight = positive_weight
        self.is_proper = positive_weight == 1

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        weight = logits.new_full((), self.positive_weight)
        target = target.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none").sum(dim=-1)

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return F.logsigmoid(logits)

    def posterior(self, logits: Tensor) -> Tensor:
        return (logits - math.log(self.positive_weight)).sigmoid()
