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

    def forward(self, hidden_BTD: Tensor, cache: AttentionCache | None = None) -> Tensor:
        """[B, T, D] → [B, T, D]; with a cache, for T positions that follow those in it, which it then holds, too."""
        q, k, v = self._heads(hidden_BTD, 0 if cache is None else cache.length)
        if cache is None or cache.length == 0:
            if cache is not None:
                cache.append(k, v)
            mixed = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0
            )
        else:
            k, v = cache.append(k, v)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=_earlier(q.shape[-2], k.shape[-2], q.device))
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

    def _heads(self, hidden_BTD: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [B, H, T, C] each, with the positions from `start` on encoded by rotation."""
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(hidden_BTD).chunk(3, dim=-1)
        )
        if self.rotary is not None:
            q, k = self.rotary(q, start), self.rotary(k, start)
        return q, k, v


def _earlier(queries: int, keys: int, device: torch.device) -> Tensor | None:
    """The keys that each of the last positions attends to, bool [queries, keys]; None for the very last, which attends
    to all."""
    if queries == 1:
        return None
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class AttentionCache:
    """Keys and values of the positions that one layer has seen.

    Args:
        context: the number of positions that there is room for.
    """

    def __init__(self, context: int) -> None:
        self.length = 0
        self._context = context
        self._kept: tuple[Tensor, Tensor] | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values [B, H, T, C] of the next T positions; returns those of all positions."""
        if self._kept is None:
            shape = (*k.shape[:2], self._context, k.shape[-1])
            self._kept = k.new_empty(shape), v.new_empty(shape)
        start, self.length = self.length, self.length + k.shape[-2]
        for kept, part in zip(self._kept, (k, v), strict=True):
            kept[:, :, start : self.length] = part
        return self._kept[0][:, :, : self.length], self._kept[1][:, :, : self.length]


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

    def forward(self, x_BHTC: Tensor, start: int = 0) -> Tensor:
        end = start + x_BHTC.shape[-2]
        cos, sin = self.cos[start:end].to(x_BHTC.dtype), self.sin[start:end].to(x_BHTC.dtype)
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
