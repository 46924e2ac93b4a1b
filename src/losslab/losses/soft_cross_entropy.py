"""Cross-entropy to a distribution over the classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import TargetKind
from losslab.losses.base import Loss


class SoftCrossEntropy(Loss):
    """Soft cross-entropy: the target is a distribution over the classes, not one of them.

    Formula:
        ℓ = −Σ_j q_j log p_j, p = softmax(z), of target distributions q.
    Gradient:
        ∂ℓ/∂z_j = p_j − q_j
    Source:
        Good 1952, "Rational decisions"; for soft targets Hinton et al. 2015, arXiv:1503.02531.
    Use:
        Where annotators disagree, labels are mixed (mixup), or another model's probabilities are the target.
    Weakness:
        Its smallest value is the entropy of q, not 0, so that values compare only over the same targets.
    Prediction:
        log softmax(z).
    Posterior:
        The minimiser p is the expected target distribution E[q | x].
    """

    target_kind = TargetKind.DISTRIBUTIONS
    shift_invariant = True
    is_proper = True

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target.to(logits.dtype), reduction="none")

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)
