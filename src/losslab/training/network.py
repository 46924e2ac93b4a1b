"""Backbone, projection and loss in one module: what DDP wraps, and what `fully_shard` makes the root."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from losslab.losses.base import Loss
from losslab.models.decoder import Decoder
from losslab.tasks.lm import LanguageModeling
from losslab.types import Batch, Features, LossSum, OutputSpec, Projection

Observer = Callable[[Features | None, Loss, Projection], LossSum]


class Network(nn.Module):
    """Nothing reads a weight outside this module's forward, so that wrappers see every use.

    Args:
        num_outputs: V.
        head_init: the stream for an untied projection and for parameters of the loss.
    """

    def __init__(
        self, *, backbone: Decoder, loss: Loss, task: LanguageModeling, num_outputs: int, head_init: torch.Generator
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = backbone.output_projection(num_outputs, head_init)
        self.loss = loss
        self.task = task
        loss.bind(OutputSpec(num_outputs=num_outputs, hidden_size=backbone.width, generator=head_init))

    def forward(self, batch: Batch | None, observer: Observer | None = None) -> LossSum:
        """The loss's sums for a batch; an evaluation passes an observer, which sees what the loss would, or, without a
        batch, the loss and the projection alone."""
        if batch is None:
            assert observer is not None
            return observer(None, self.loss, self.projection)
        features = self.task.features(self.backbone, batch)
        if observer is not None:
            return observer(features, self.loss, self.projection)
        result: LossSum = self.loss(features, self.projection)
        return result

    def compile_layers(self) -> None:
        """Compile the forward of each of the body's layers, not the modules: the names of the weights stay as they are,
        and hooks on hidden states stay outside."""
        for layer in self.backbone.layers:
            layer.forward = torch.compile(layer.forward)

    def flops_per_token(self) -> int:
        """Of one forward and backward pass, output projection included."""
        return self.backbone.flops_per_token() + 6 * self.projection.weight.numel()
