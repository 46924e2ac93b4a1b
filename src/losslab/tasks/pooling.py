"""Pooling: one hidden state for each text, out of one for each position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from losslab.contracts import flat_hidden

Pooling = Literal["first", "mean", "last"]
"""The hidden state that stands for a text: of its first position, the mean over its positions, or of its last one.

In a causal model the first position has read one token alone; the last one has read all. In a bidirectional model every
position has read all."""


def pooled(hidden: Tensor, inputs: Mapping[str, Tensor], pooling: Pooling, *, weight: Tensor, backbone: Any) -> Tensor:
    """[B, D]: one row for each of B texts.

    Args:
        hidden: the model's, [B, T, D]; or [B, D], where it has pooled itself: those stay as they are.
        inputs: the batch's; `mask`, bool [B, T], is False in the padding, which never counts. Without it all do.
        weight: the batch's, [B].
        backbone: for the message.

    Raises:
        UserError: for hidden states of another shape.
    """
    if hidden.ndim > weight.ndim + 1:
        hidden = _POOL[pooling](hidden, inputs.get("mask"))
    return flat_hidden(hidden, weight, backbone)


def _mean(hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    if mask_BT is None:
        return hidden_BTD.mean(dim=1)
    kept = mask_BT[..., None].to(hidden_BTD.dtype)
    return (hidden_BTD * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def _first(hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    if mask_BT is None:
        return hidden_BTD[:, 0]
    return _at(hidden_BTD, mask_BT.int().argmax(dim=1))


def _last(hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    if mask_BT is None:
        return hidden_BTD[:, -1]
    return _at(hidden_BTD, mask_BT.shape[1] - 1 - mask_BT.int().flip(1).argmax(dim=1))


def _at(hidden_BTD: Tensor, place_B: Tensor) -> Tensor:
    place = place_B[:, None, None].expand(-1, 1, hidden_BTD.shape[2])
    return hidden_BTD.gather(1, place)[:, 0]


_POOL = {"first": _first, "mean": _mean, "last": _last}
