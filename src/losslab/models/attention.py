"""Causal multi-head self-attention and the three ways of telling positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTARY_BASE = 10_000.0


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each position to itself and those before it (Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        width: D, divisible by num_heads.
        num_heads: H.
        context: T, the longest sequence.
        rotary: rotate queries and keys by their position.
        bias: additive terms in both linear maps.
        dropout: on the attention weights.
    """

    def __init__(self, *, width: int, num_heads: int, context: int, rotary: bool, bias: bool, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        self.rotary = RotaryPositions(width // num_heads, context) if rotary else None

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        q, k, v = self._heads(hidden_BTD)
        mixed = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(-2))
        return output

    def weights(self, hidden_BTD: Tensor) -> Tensor:
        """Weights of each position (row) for itself and those before it: softmax(q kᵀ / √C), with zeros above the
        diagonal; float32 [B, H, T, T]. `forward` never holds them; they are for looking at."""
        q, k, _ = self._heads(hidden_BTD)
        with torch.autocast(device_type=q.device.type, enabled=False):
            scores = q.float() @ k.float().transpose(-1, -2) / math.sqrt(q.shape[-1])
        later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -math.inf).softmax(dim=-1)

    def _heads(self, hidden_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [B, H, T, C] each, with positions encoded by rotation."""
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(hidden_BTD).chunk(3, dim=-1)
        )
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        return q, k, v


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

    def forward(self, x_BHTC: Tensor) -> Tensor:
        length = x_BHTC.shape[-2]
        cos, sin = self.cos[:length].to(x_BHTC.dtype), self.sin[:length].to(x_BHTC.dtype)
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
