"""The cache of one attention layer, for generation."""

from __future__ import annotations

import torch
from torch import Tensor


class AttentionCache:
    """Keys and values of the positions that one layer has seen; of the last `window` − 1 where attention has a window.

    Args:
        context: the number of positions that there is room for.
        window: positions that a position attends to, itself included; None: all before it.
    """

    def __init__(self, context: int, window: int | None = None) -> None:
        self.length = 0
        """Positions seen."""
        self.segments: Tensor | None = None
        """int64 [B, length]: the documents of those positions, where the inputs name them."""
        self.source: tuple[Tensor, Tensor] | None = None
        """Keys and values [B, H, S, C] of a source that the layer attends to; None before the first call."""
        self._context = context
        self._window = window
        self._kept: tuple[Tensor, Tensor] | None = None

    @property
    def first(self) -> int:
        """The number of the first position whose keys and values are still there."""
        return 0 if self._window is None else max(0, self.length - self._window + 1)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values [B, H, T, C] of the next T positions; returns those of all positions kept before, and
        of these."""
        if self._window is not None:
            return self._append_to_window(k, v)
        if self._kept is None:
            shape = (*k.shape[:2], self._context, k.shape[-1])
            self._kept = k.new_empty(shape), v.new_empty(shape)
        start, self.length = self.length, self.length + k.shape[-2]
        for kept, part in zip(self._kept, (k, v), strict=True):
            kept[:, :, start : self.length] = part
        return self._kept[0][:, :, : self.length], self._kept[1][:, :, : self.length]

    def _append_to_window(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self._kept is not None:
            k, v = torch.cat([self._kept[0], k], dim=-2), torch.cat([self._kept[1], v], dim=-2)
        begun = self.first
        self.length = begun + k.shape[-2]
        left_out = self.first - begun
        self._kept = k[:, :, left_out:], v[:, :, left_out:]
        return k, v

    def reorder(self, rows: Tensor) -> None:
        """Make the sample `rows[i]` number i, for a search that drops some and goes on from others several times.

        Args:
            rows: int64 [N].
        """
        if self.segments is not None:
            self.segments = self.segments.index_select(0, rows)
        if self.source is not None:
            self.source = self.source[0].index_select(0, rows), self.source[1].index_select(0, rows)
        if self._kept is None:
            return
        if self._window is not None:
            self._kept = self._kept[0].index_select(0, rows), self._kept[1].index_select(0, rows)
            return
        filled = [part[:, :, : self.length].index_select(0, rows) for part in self._kept]
        shape = (len(rows), *self._kept[0].shape[1:])
        self._kept = self._kept[0].new_empty(shape), self._kept[1].new_empty(shape)
        for kept, part in zip(self._kept, filled, strict=True):
            kept[:, :, : self.length] = part
