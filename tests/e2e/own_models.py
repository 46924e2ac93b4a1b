"""A person's own parts, which draw from the global generators as PyTorch's own do."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from losslab.contracts import DataInfo, OutputSpec, Task
from losslab.data.module import TextDataModule
from losslab.data.windows import TrainOrder
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.projection import OutputProjection


class Layer(nn.Module):
    """One of PyTorch's own, as it initialises itself."""

    def __init__(self, kind: str, width: int, num_heads: int) -> None:
        super().__init__()
        self.inner: nn.Module
        if kind == "linear":
            self.inner = nn.Linear(width, width)
        elif kind == "gru":
            self.inner = nn.GRU(width, width, batch_first=True)
        else:
            self.inner = nn.TransformerEncoderLayer(width, num_heads, width, dropout=0.1, batch_first=True)

    def forward(self, hidden: Tensor) -> Tensor:
        if isinstance(self.inner, nn.TransformerEncoderLayer):
            ahead = nn.Transformer.generate_square_subsequent_mask(hidden.shape[1], device=hidden.device)
            found = self.inner(hidden, src_mask=ahead, is_causal=True)
        else:
            found = self.inner(hidden)
        output: Tensor = found[0] if isinstance(found, tuple) else found
        return output


class OwnModel(nn.Module):
    """An embedding, one plain layer of PyTorch's, and a projection, all with PyTorch's own initialisation.

    Args:
        layer: linear, gru or encoder.
        fixed: seed every generator with 0 first, so that all runs start alike.
    """

    def __init__(
        self,
        *,
        layer: str,
        fixed: bool,
        width: int,
        num_heads: int,
        num_layers: int,
        context: int,
        vocab_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if fixed:
            torch.manual_seed(0)
        self.width, self.context, self.num_layers = width, context, num_layers
        self.embedding = nn.Embedding(vocab_size, width)
        self.last_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(layer, width, num_heads) for _ in range(num_layers))
        self.shift: Tensor
        self.register_buffer("shift", torch.rand(width) * float(np.random.rand()) * random.random())  # noqa: NPY002

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden = self.embedding(inputs["tokens"]) + self.shift
        for layer in self.layers:
            hidden = layer(hidden)
        output: Tensor = self.last_norm(hidden)
        return output

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        return OutputProjection(nn.Parameter(nn.Linear(self.width, num_outputs).weight.detach().clone()))

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


class OwnLoss(CrossEntropy):
    """Cross-entropy with parameters drawn at both chances, and noise from all three generators in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Parameter(torch.randn(3))

    def bind(self, spec: OutputSpec) -> None:
        super().bind(spec)
        self.late = nn.Parameter(torch.randn(3))

    def map_logits(self, logits: Tensor) -> Tensor:
        noise = float(torch.rand(())) + float(np.random.rand()) + random.random()  # noqa: NPY002
        return logits * (1 + 0.01 * noise) + 0.0 * (self.early.sum() + self.late.sum())


class OwnData(TextDataModule):
    """Has an order of its own, drawn while it is prepared."""

    drawn = 0

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        self.drawn = int(torch.randint(1000, ())) + random.randrange(1000) + int(np.random.randint(1000))  # noqa: NPY002
        return super().prepare(cache, task)

    def order(self) -> TrainOrder:
        return replace(super().order(), seed=self.seed + self.drawn)


class OwnOptimizer(torch.optim.SGD):
    """Draws the momentum that its author was not sure of."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr, momentum=float(torch.rand(())))
