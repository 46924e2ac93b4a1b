"""Multi-head attention: of positions to each other, and to a source."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.models.cache import AttentionCache
from losslab.models.masks import Layout, layout_of
from losslab.models.positions import RotaryPositions


class SelfAttention(nn.Module):
    """Multi-head attention of positions to each other (Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        width: D, divisible by num_heads.
        num_heads: H.
        context: T, the longest sequence.
        rotary: rotate queries and keys by their position.
        bias: additive terms in both linear maps.
        dropout: on the attention weights.
        causal: each position attends to itself and those before it.
        num_kv_heads: heads of keys and values, a divisor of num_heads, each shared by as many queries' heads (Ainslie
            et al. 2023, arXiv:2305.13245); None: as many as there are heads.
        window: distances below this are attended to (Beltagy et al. 2020, arXiv:2004.05150); None: any.
        qk_norm: an RMSNorm for each head's queries and keys, before rotation (Henry et al. 2020, arXiv:2010.04245).
    """

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        context: int,
        rotary: bool,
        bias: bool,
        dropout: float,
        causal: bool = True,
        num_kv_heads: int | None = None,
        window: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.dropout = dropout
        self.causal = causal
        self.window = window
        self.head_width = head_width = width // num_heads
        kv_width = self.num_kv_heads * head_width
        self.sizes = [width, kv_width, kv_width]
        """Outputs of `qkv` that are queries, keys and values."""
        self.qkv = nn.Linear(width, sum(self.sizes), bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        self.rotary = RotaryPositions(head_width, context) if rotary else None
        self.query_norm = nn.RMSNorm(head_width, eps=1e-6) if qk_norm else None
        self.key_norm = nn.RMSNorm(head_width, eps=1e-6) if qk_norm else None

    def forward(self, hidden_BTD: Tensor, layout: Layout | None = None, cache: AttentionCache | None = None) -> Tensor:
        """[B, T, D] → [B, T, D].

        Args:
            layout: made for these positions; None: for a window without padding and documents.
            cache: the T positions follow those in it, and are in it afterwards.
        """
        layout = self._plain(hidden_BTD) if layout is None else layout
        start = 0 if cache is None else cache.length
        q, k, v = self._heads(hidden_BTD, layout, start)
        if cache is not None:
            k, v = cache.append(k, v)
        k, v = _for_each_query(k, self.num_heads), _for_each_query(v, self.num_heads)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=layout.allowed,
            is_causal=self.causal and layout.allowed is None and start == 0,
            dropout_p=self.dropout if self.training else 0.0,
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(-2))
        return output

    def weights(self, hidden_BTD: Tensor, layout: Layout | None = None) -> Tensor:
        """Weights of each position (row) for those that it attends to: softmax(q kᵀ / √C), with zeros elsewhere;
        float32 [B, H, T, T]. `forward` never holds them; they are for looking at."""
        layout = self._plain(hidden_BTD) if layout is None else layout
        q, k, _ = self._heads(hidden_BTD, layout)
        with torch.autocast(device_type=q.device.type, enabled=False):
            scores = q.float() @ _for_each_query(k, self.num_heads).float().transpose(-1, -2) / math.sqrt(q.shape[-1])
        allowed = layout.allowed
        if allowed is None and self.causal:
            allowed = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        return (scores if allowed is None else scores.masked_fill(~allowed, -math.inf)).softmax(dim=-1)

    def _plain(self, hidden_BTD: Tensor) -> Layout:
        return layout_of(causal=self.causal, window=self.window, tokens_BT=hidden_BTD)

    def _heads(self, hidden_BTD: Tensor, layout: Layout, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, T, C], and keys and values of their own heads, with positions encoded by rotation."""
        q, k, v = (
            part.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in self.qkv(hidden_BTD).split(self.sizes, dim=-1)
        )
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q, start, layout.positions), self.rotary(k, start, layout.positions)
        return q, k, v


class Memory(NamedTuple):
    """A source as the layers of a decoder attend to it."""

    hidden: Tensor
    """[B, S, D]: its hidden states. They are not read once a cache has their keys and values."""
    allowed: Tensor | None = None
    """bool [B, 1, 1, S]: False in the padding; None: there is none."""


class CrossAttention(nn.Module):
    """Multi-head attention of a target's positions to a source (Vaswani et al. 2017, section 3.2.3).

    Queries and keys are not rotated: distances between positions of two texts mean nothing.

    Args:
        width, num_heads, bias, dropout, num_kv_heads, qk_norm: see `SelfAttention`.
    """

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        bias: bool,
        dropout: float,
        num_kv_heads: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.head_width = head_width = width // num_heads
        kv_width = (num_heads if num_kv_heads is None else num_kv_heads) * head_width
        self.query = nn.Linear(width, width, bias=bias)
        self.kv = nn.Linear(width, 2 * kv_width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        self.query_norm = nn.RMSNorm(head_width, eps=1e-6) if qk_norm else None
        self.key_norm = nn.RMSNorm(head_width, eps=1e-6) if qk_norm else None

    def forward(self, hidden_BTD: Tensor, memory: Memory, cache: AttentionCache | None = None) -> Tensor:
        """[B, T, D] → [B, T, D].

        Args:
            cache: keeps the source's keys and values, which are computed in the first call alone.
        """
        q = self._heads(self.query(hidden_BTD))
        q = q if self.query_norm is None else self.query_norm(q)
        k, v = self._source(memory.hidden) if cache is None or cache.source is None else cache.source
        if cache is not None:
            cache.source = k, v
        mixed = F.scaled_dot_product_attention(
            q,
            _for_each_query(k, self.num_heads),
            _for_each_query(v, self.num_heads),
            attn_mask=memory.allowed,
            dropout_p=self.dropout if self.training else 0.0,
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(-2))
        return output

    def _source(self, hidden_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, S, C]."""
        k, v = (self._heads(part) for part in self.kv(hidden_BSD).chunk(2, dim=-1))
        return k if self.key_norm is None else self.key_norm(k), v

    def _heads(self, vectors: Tensor) -> Tensor:
        heads: Tensor = vectors.unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # type: ignore[no-untyped-call]
        return heads


def _for_each_query(kept: Tensor, num_heads: int) -> Tensor:
    """Keys or values [B, H', T, C], repeated for the heads of the queries."""
    groups = num_heads // kept.shape[1]
    return kept if groups == 1 else kept.repeat_interleave(groups, dim=1)
