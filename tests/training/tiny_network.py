"""A network small enough to train in milliseconds, and ragged batches for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from losslab.contracts import Batch, DataInfo
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.square import Square
from losslab.models.decoder import Decoder
from losslab.tasks.lm import LanguageModeling
from losslab.training.network import Network

V, CONTEXT, WINDOWS = 11, 6, 8
CLASS_WEIGHTS = [0.5, 1.0, 2.0, 0.25, 1.5, 3.0, 1.0, 1.0, 2.0, 0.5, 1.0]


def make_losses() -> dict[str, Loss]:
    return {
        "cross_entropy": CrossEntropy(),
        "cross_entropy with class weights": CrossEntropy(label_smoothing=0.1, class_weights=CLASS_WEIGHTS),
        "kl_divergence": KLDivergence(),
        "square": Square(k=2.0, m=3.0),
    }


LOSSES = list(make_losses())
INFO = DataInfo(splits={}, mean_positions=CONTEXT, vocab_size=V)


def make_network(loss: str = "cross_entropy", *, seed: int = 0, **options: Any) -> Network:
    sizes = {"num_layers": 2, "num_heads": 2, "width": 8, "context": CONTEXT, "init_std": 0.3, "norm": "layer"}
    backbone = Decoder(**(sizes | options), vocab_size=V, generator=torch.Generator().manual_seed(seed))
    return Network(
        backbone=backbone,
        loss=make_losses()[loss],
        task=LanguageModeling(),
        info=INFO,
        head_init=torch.Generator().manual_seed(seed + 1),
    )


def make_batch(*, windows: int = WINDOWS, seed: int = 2, all_ignored: bool = False) -> Batch:
    """Windows of ragged length, with further positions ignored at random and some that count double."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(V, (windows, CONTEXT + 1), generator=generator)
    lengths = torch.randint(1, CONTEXT + 1, (windows, 1), generator=generator)
    inside = torch.arange(CONTEXT) < lengths
    weight = torch.randint(3, (windows, CONTEXT), generator=generator) * inside
    extras = {
        "bytes": torch.randint(1, 5, (windows, CONTEXT), generator=generator).float(),
        "fit": (torch.arange(windows) % 2 == 0)[:, None].expand(windows, CONTEXT).float(),
        "unit": (torch.arange(windows) % 3)[:, None].expand(windows, CONTEXT),
    }
    return Batch({"tokens": tokens[:, :-1]}, tokens[:, 1:], weight.float() * (not all_ignored), extras)


def split(batch: Batch, size: int) -> list[Batch]:
    """Micro-batches of `size` windows."""
    return [
        Batch(
            {n: v[i : i + size] for n, v in batch.inputs.items()},
            batch.target[i : i + size],
            batch.weight[i : i + size],
            {n: v[i : i + size] for n, v in batch.extras.items()},
        )
        for i in range(0, len(batch.target), size)
    ]


def flat_gradient(network: Network) -> Tensor:
    """All gradients as one float64 vector; every parameter has one."""
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).double()


def token_mean_gradient(network: Network, batch: Batch) -> Tensor:
    """Gradients of Σ total / Σ weight over the whole batch at once, without any of training/reduce.py."""
    network.zero_grad()
    result = network(batch)
    (result.total / result.weight).backward()
    return flat_gradient(network)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()
