"""Mixup: each sample of a step mixed with another of the same step, in its inputs and in its targets."""

from __future__ import annotations

import torch
from torch import Tensor

from losslab.contracts import MIXED_SHARES, MIXED_TARGET, MIXED_TOKENS, MIXED_WEIGHT, Batch
from losslab.errors import UserError


def mix(batch: Batch, share: float) -> Batch:
    """B samples mixed with B others (Zhang et al. 2018, arXiv:1710.09412; of texts: Guo et al. 2019, arXiv:1905.08941).

    Args:
        batch: 2B samples of one position each: the B that are wanted, and the partner of each.
        share: λ, of the first ones.

    Returns:
        B samples whose weight is λ of theirs, with what `losslab.contracts.MIXED_TARGET` and its neighbours name.
        Inputs that are numbers are mixed here; tokens are given beside those of the partner, for the embeddings to be
        mixed; both masks become one.

    Raises:
        UserError: for samples of several positions.
    """
    if batch.weight.ndim != 1:
        raise UserError(
            "data.augment.mixup mixes samples of one target each, and this task gives each position of a sample its "
            "own: leave it out"
        )
    size = len(batch.weight) // 2
    tokens, mask = batch.inputs.get("tokens"), batch.inputs.get("mask")
    inputs = {name: _mixed(name, value, mask, size, share) for name, value in batch.inputs.items()}
    if tokens is not None:
        real = torch.ones_like(tokens, dtype=torch.float32) if mask is None else mask.float()
        inputs[MIXED_TOKENS] = tokens[size:]
        inputs[MIXED_SHARES] = torch.stack([share * real[:size], (1 - share) * real[size:]], dim=-1)
    extras = {name: value[:size] for name, value in batch.extras.items()}
    extras |= {MIXED_TARGET: batch.target[size:], MIXED_WEIGHT: (1 - share) * batch.weight[size:]}
    return Batch(inputs, batch.target[:size], share * batch.weight[:size], extras)


def _mixed(name: str, value: Tensor, mask: Tensor | None, size: int, share: float) -> Tensor:
    own, other = value[:size], value[size:]
    if value.is_floating_point():
        return share * own + (1 - share) * other
    if name == "mask":
        return own | other
    if name == "tokens" or mask is None or value.shape != mask.shape:
        return own
    return torch.where(mask[:size], own, other)
