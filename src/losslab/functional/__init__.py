"""Losses for other people's training loops: from hidden states, output projection and targets to a scalar, without the
logits of the whole batch. The import needs torch alone: no Lightning, no Hydra."""

from losslab.contracts.sequences import following_targets, previous_tokens
from losslab.functional.linear_loss import LinearLoss, linear_loss

__all__ = ["LinearLoss", "following_targets", "linear_loss", "previous_tokens"]
