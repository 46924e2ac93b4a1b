"""Statistics of a position's logits that a loss of the softmax needs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SoftmaxStats:
    """Three numbers a position, z being its logits (divided by the loss's temperature); each [N]."""

    num_outputs: int
    """V."""

    target: Tensor
    """y: int64."""
    target_logit: Tensor
    """z_y."""
    logsumexp: Tensor
    """log Σ_j exp z_j."""
    linear: Tensor | None = None
    """u · z, for the loss's `linear_weights` u."""

    @property
    def log_prob(self) -> Tensor:
        """log p_y, p = softmax(z)."""
        return self.target_logit - self.logsumexp

    @classmethod
    def of(cls, logits: Tensor, target: Tensor, linear_weights: Tensor | None) -> SoftmaxStats:
        """Compute the statistics of logits [N, V], differentiably."""
        return cls(
            num_outputs=logits.shape[-1],
            target=target,
            target_logit=logits.gather(-1, target[:, None])[:, 0],
            logsumexp=logits.logsumexp(dim=-1),
            linear=None if linear_weights is None else logits @ linear_weights.to(logits),
        )
