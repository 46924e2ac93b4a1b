"""Which parameters decay."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two groups: weight decay as configured, and none for norms, biases and embeddings.

    A tied output projection is the embedding, and does not decay; one of its own does. Parameters of a loss decay where
    they are matrices.
    """
    embeddings = {id(p) for m in network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    decaying: list[nn.Parameter] = []
    fixed: list[nn.Parameter] = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            (decaying if parameter.ndim >= 2 and id(parameter) not in embeddings else fixed).append(parameter)
    return [{"params": decaying}, {"params": fixed, "weight_decay": 0.0}]
