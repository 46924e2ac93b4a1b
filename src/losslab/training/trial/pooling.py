"""The trial of what stands for a text: it depends on more than the text's first token."""

from __future__ import annotations

import torch

from losslab.contracts import Batch
from losslab.errors import Doubt
from losslab.training.network import Network
from losslab.training.trial.model import same

_PROBE = 16
"""Positions that are read."""


def longest_text(batch: Batch) -> Batch | None:
    """The sample with the most tokens, where a sample has one position and some have several tokens."""
    tokens, mask = batch.inputs.get("tokens"), batch.inputs.get("mask")
    if batch.weight.ndim != 1 or tokens is None or tokens.ndim != 2 or not len(tokens):
        return None
    lengths = torch.full((len(tokens),), tokens.shape[1]) if mask is None else mask.sum(dim=1)
    row = int(lengths.argmax())
    if int(lengths[row]) < 2:
        return None
    inputs = {name: value[row : row + 1] for name, value in batch.inputs.items()}
    extras = {name: value[row : row + 1] for name, value in batch.extras.items()}
    return batch._replace(
        inputs=inputs, target=batch.target[row : row + 1], weight=batch.weight[row : row + 1], extras=extras
    )


def reads_more_than_the_first(network: Network, batch: Batch) -> str:
    """Other tokens behind the first give another hidden state.

    Raises:
        Doubt: where they do not: a causal model, of which the first position stands for a text.
    """
    tokens = batch.inputs["tokens"]
    inputs = {
        name: value[:, :_PROBE] if value.shape[:2] == tokens.shape else value for name, value in batch.inputs.items()
    }
    changed = inputs["tokens"].clone()
    changed[:, 1:] = torch.where(changed[:, 1:] == 0, 1, changed[:, 1:] - 1)
    kind, needs, training = network.loss.target_kind, network.loss.needs, network.training
    with torch.no_grad():
        network.eval()
        one, other = (
            network.task.features(network.backbone, batch._replace(inputs=given), kind, needs).hidden  # type: ignore[arg-type]
            for given in (inputs, inputs | {"tokens": changed})
        )
    network.train(training)
    if same(one, other):
        raise Doubt(
            "the hidden state that stands for a text depends on its first token alone: the first position of a model "
            "that reads from left to right; task.pooling=last or mean reads the text, or a model reads both sides "
            "(model=encoder)"
        )
    return "more than the first token counts"
