"""Encodings of positions: rotary, and the sinusoidal table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROTARY_BASE = 10_000.0


class RotaryPositions(nn.Module):
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864), on halves of the head's width."""

    def __init__(self, head_width: int, context: int) -> None:
        super().__init__()
        frequencies = ROTARY_BASE ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.arange(context, dtype=torch.float64)[:, None] * frequencies
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x_BHTC: Tensor, start: int = 0, positions_BT: Tensor | None = None) -> Tensor:
        """Rotate T vectors by their positions: `positions_BT`, or T of them from `start` on."""
        if positions_BT is None:
            end = start + x_BHTC.shape[-2]
            cos, sin = self.cos[start:end], self.sin[start:end]
        else:
            cos, sin = self.cos[positions_BT][:, None], self.sin[positions_BT][:, None]
        cos, sin = cos.to(x_BHTC.dtype), sin.to(x_BHTC.dtype)
        first, second = x_BHTC.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def sinusoidal_positions(context: int, width: int) -> Tensor:
    """[T, D] sines and cosines (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(context, dtype=torch.float64)[:, None]
    frequencies = ROTARY_BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    table = torch.empty(context, width, dtype=torch.float64)
    table[:, 0::2] = (position * frequencies).sin()
    table[:, 1::2] = (position * frequencies).cos()[:, : width // 2]
    return table.float()
