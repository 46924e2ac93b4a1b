"""Sequences side by side, and what stands before and after each position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def padded(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """B sequences [T_i] side by side, [B, T] with zeros behind the shorter ones, and a mask, bool [B, T], that is False
    there. T is at least 1. Sequences of vectors [T_i, F] become [B, T, F]."""
    rows = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
    if rows.shape[1] == 0:
        rows = rows.new_zeros(len(sequences), 1)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return rows, torch.arange(rows.shape[1]) < lengths[:, None]


def previous_tokens(tokens: Tensor, count: int, segments: Tensor | None = None) -> Tensor:
    """The inputs up to each position, for `Features.extras["previous"]`.

    Args:
        tokens: int [B, T].
        count: how many, K, above 0; at most T are given.
        segments: int [B, T], the document of each token; tokens of other documents are left out.

    Returns:
        int32 [B, T, min(K, T)], the latest first; -1 before the first.
    """
    count = min(count, tokens.shape[1])
    found = _windows_back(tokens, count)
    if segments is None:
        return found
    return found.masked_fill(_windows_back(segments, count) != segments[..., None], -1)


def following_targets(target: Tensor, weight: Tensor, count: int, segments: Tensor | None = None) -> Tensor:
    """The targets of the positions after each, for `Features.extras["next"]`.

    Args:
        target: int [B, T], of a task that predicts the next token of a running text.
        weight: [B, T]; targets of weight 0 are left out, also where others come after them.
        count: how many, K, above 0; at most T are given.
        segments: int [B, T], the document of each input; targets of other documents are left out.

    Returns:
        int32 [B, T, min(K, T)], the nearest first; -1 where there is none.
    """
    count = min(count, target.shape[1])
    found = _windows_ahead(target.masked_fill(weight == 0, -1), count)
    if segments is None:
        return found
    return found.masked_fill(_windows_ahead(segments, count) != segments[..., None], -1)


def _windows_ahead(values: Tensor, count: int) -> Tensor:
    return F.pad(values[:, 1:].int(), (0, count), value=-1).unfold(1, count, 1)


def _windows_back(values: Tensor, count: int) -> Tensor:
    return F.pad(values.int(), (count - 1, 0), value=-1).unfold(1, count, 1).flip(-1)
