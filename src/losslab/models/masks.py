"""Layout of a batch: the keys that each position attends to, its number in its document, and the padding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """Tensors that each layer reads beside the hidden states. None stands for the plain case, which costs nothing."""

    allowed: Tensor | None = None
    """bool, broadcast to [B, 1, T, S]: the keys that each position attends to. None: all that its direction allows."""
    positions: Tensor | None = None
    """int64 [B, T]: the number of each position in its document. None: they are counted from the window's first."""
    kept: Tensor | None = None
    """bool [B, T]: False in the padding. None: there is none."""


def layout_of(
    *,
    causal: bool,
    window: int | None,
    tokens_BT: Tensor,
    mask_BT: Tensor | None = None,
    segments_BS: Tensor | None = None,
    start: int = 0,
    first_key: int = 0,
) -> Layout:
    """The layout of T positions that follow `start` others.

    A causal stack does not read `mask_BT`: padding stands behind, where no position before it looks. A position whose
    keys are all excluded attends to itself (to all, where padding alone decides): its hidden state means nothing, and
    is finite.

    Args:
        causal: positions attend to themselves and to those before.
        window: keys within this distance are attended to: |i − j| < window. None: any distance.
        tokens_BT: an input of the shape [B, T, …].
        segments_BS: documents of all S = start + T positions; attention stays inside them, and numbers restart.
        first_key: the number of the first key, of those that a cache has kept.
    """
    count, end, device = tokens_BT.shape[1], start + tokens_BT.shape[1], tokens_BT.device
    mask_BT = None if causal or mask_BT is None else mask_BT.bool()
    kept = None if mask_BT is None else mask_BT
    allowed = _by_distance(causal, window, start, end, first_key, segments_BS is not None, device)
    if segments_BS is None:
        if mask_BT is None:
            return Layout(allowed)
        if allowed is None:
            nothing = ~mask_BT.any(dim=1, keepdim=True)
            return Layout((mask_BT | nothing)[:, None, None, :], kept=kept)
    positions = None
    if segments_BS is not None:
        positions = _restarting(segments_BS)[:, start:]
        inside = segments_BS[:, start:, None] == segments_BS[:, None, first_key:]
        allowed = inside[:, None] if allowed is None else inside[:, None] & allowed
    if mask_BT is not None:
        assert allowed is not None
        own = torch.eye(count, dtype=torch.bool, device=device)
        allowed = allowed & mask_BT[:, None, None, :] | own
    return Layout(allowed, positions, kept)


def _by_distance(
    causal: bool, window: int | None, start: int, end: int, first_key: int, explicit: bool, device: torch.device
) -> Tensor | None:
    """The keys that direction and window allow, bool [T, S]; None where attention needs no mask: it is told to be
    causal, or every key is allowed.

    Args:
        explicit: a mask is needed for other reasons, so that a causal one must be written out, too.
    """
    narrow = window is not None and window < end - first_key
    told = start == 0 or end - start == 1  # by SDPA's is_causal; or the last position attends to every key
    if not narrow and (not causal or (told and not explicit)):
        return None
    distance = torch.arange(start, end, device=device)[:, None] - torch.arange(first_key, end, device=device)
    allowed = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        allowed &= distance >= 0
    if narrow:
        assert window is not None
        allowed &= distance.abs() < window
    return allowed


def _restarting(segments_BS: Tensor) -> Tensor:
    """The number of each position in its run of equal segments, int64 [B, S]."""
    number = torch.arange(segments_BS.shape[1], device=segments_BS.device).expand(segments_BS.shape)
    begins = torch.zeros_like(number)
    begins[:, 1:] = torch.where(segments_BS[:, 1:] != segments_BS[:, :-1], number[:, 1:], 0)
    return number - begins.cummax(dim=1).values
