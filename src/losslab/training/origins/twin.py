"""Twins: runs whose initial weights differ by a millionth, so that what differs at their ends is chaos."""

from __future__ import annotations

from typing import Any

import torch

from losslab.config.streams import SEEDS, TWIN
from losslab.training.network import Network
from losslab.training.random import generator

SIZE = 1e-6
"""Standard deviation of the relative change, some ten roundings of float32."""


def make_twin(network: Network, config: dict[str, Any]) -> None:
    """Multiply every weight by 1 + SIZE · N(0, 1), drawn from (seed, twin, the weight's name): of all losses the models
    are changed alike. Nothing is done where `seeds.twin` is null."""
    twin = config[SEEDS][TWIN]
    if twin is None:
        return
    with torch.no_grad():
        for name, weight in network.named_parameters():
            stream = generator(config["seed"], f"{TWIN}/{twin}/{name}")
            factors = 1 + SIZE * torch.randn(weight.shape, dtype=torch.float64, generator=stream)
            weight.copy_(weight.double() * factors)
