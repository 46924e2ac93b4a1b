"""The output projection: hidden states → logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from losslab.products import linear


class OutputProjection(nn.Module):
    """logits = hidden · weightᵀ (+ bias).

    Args:
        weight: [V, D]; the token embedding's own parameter where input and output are tied.
        bias: [V] or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = weight  # a Parameter registers itself
        self.bias = bias

    @classmethod
    def initialised(
        cls, num_outputs: int, hidden_size: int, std: float, generator: torch.Generator
    ) -> OutputProjection:
        """A projection of its own, drawn from N(0, std²) out of the head_init stream."""
        weight = nn.Parameter(torch.empty(num_outputs, hidden_size))
        nn.init.normal_(weight, std=std, generator=generator)
        return cls(weight)

    def forward(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.weight, self.bias)
