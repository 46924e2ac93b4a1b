"""Normalising layers of a stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Each feature is normalised over all positions of the batch that are not padding (Ioffe & Szegedy 2015,
    arXiv:1502.03167), and in evaluation by running averages of its mean and variance.

    A sample's training then depends on the other samples of its batch: see `Backbone.mixes_samples`.

    Args:
        width: D.
        eps: added to the variance.
        momentum: share of the newest batch in the running averages.
    """

    def __init__(self, width: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, hidden_BTD: Tensor, kept_BT: Tensor | None = None) -> Tensor:
        """[B, T, D] → [B, T, D].

        Args:
            kept_BT: bool, False in the padding; None: there is none.
        """
        mean, var = self._moments(hidden_BTD, kept_BT) if self.training else (self.running_mean, self.running_var)
        scaled = (hidden_BTD.float() - mean) * (var + self.eps).rsqrt() * self.weight + self.bias
        return scaled.to(hidden_BTD.dtype)

    def _moments(self, hidden_BTD: Tensor, kept_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance [D] of this batch; the running averages take them in, the variance without its bias."""
        hidden = hidden_BTD.float()
        weight = torch.ones_like(hidden[..., :1]) if kept_BT is None else kept_BT[..., None].to(hidden.dtype)
        count = weight.sum().clamp(min=1)
        mean = (hidden * weight).sum(dim=(0, 1)) / count
        var = ((hidden - mean).square() * weight).sum(dim=(0, 1)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1).clamp(min=1), self.momentum)
        return mean, var


def make_norm(kind: str, width: int) -> nn.Module:
    """A norm by its name: rms (Zhang & Sennrich 2019, arXiv:1910.07467), layer (Ba et al. 2016, arXiv:1607.06450) or
    batch."""
    if kind == "batch":
        return BatchNorm(width)
    return nn.RMSNorm(width, eps=1e-6) if kind == "rms" else nn.LayerNorm(width)


def normalise(norm: nn.Module, hidden_BTD: Tensor, kept_BT: Tensor | None) -> Tensor:
    """Apply a norm; of those that there are, one reads which positions are padding."""
    normalised: Tensor = norm(hidden_BTD, kept_BT) if isinstance(norm, BatchNorm) else norm(hidden_BTD)
    return normalised
