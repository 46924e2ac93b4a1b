"""Backbone, projection and loss in one module: what DDP wraps, and what `fully_shard` makes the root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from losslab.contracts import Batch, Features, LossSum, OutputSpec, Projection
from losslab.losses.base import Loss
from losslab.models.decoder import Decoder
from losslab.tasks.lm import LanguageModeling
from losslab.training.random import global_stream, hash_weights

Observer = Callable[[Features | None, Loss, Projection], LossSum]


class Teacher(Protocol):
    """A trained network that a loss learns from; no module, so that nothing of it is trained, wrapped or saved."""

    def hidden(self, batch: Batch) -> Tensor:
        """[N, D'], for the positions that the task selects."""
        ...

    def log_probs(self, hidden: Tensor) -> Tensor:
        """[N, D'] → what it predicts, [N, V]."""
        ...

    def flops_per_token(self) -> int:
        """Of one forward pass."""
        ...


class Network(nn.Module):
    """Nothing reads a weight outside this module's forward, so that wrappers see every use.

    Args:
        num_outputs: how many classes there are.
        head_init: the stream for an untied projection and for parameters of the loss.
        class_counts: [V], how often each class is a target in train, for losses that want to know.
    """

    def __init__(
        self,
        *,
        backbone: Decoder,
        loss: Loss,
        task: LanguageModeling,
        num_outputs: int,
        head_init: torch.Generator,
        class_counts: Tensor | None = None,
    ) -> None:
        super().__init__()
        num_outputs = loss.num_outputs(num_outputs)
        self.backbone = backbone
        with global_stream(head_init.initial_seed(), "projection"):
            self.projection = backbone.output_projection(num_outputs, head_init)
        self.loss = loss
        self.task = task
        self.teacher: Teacher | None = None
        spec = OutputSpec(
            num_outputs=num_outputs, hidden_size=backbone.width, generator=head_init, class_counts=class_counts
        )
        with global_stream(head_init.initial_seed(), "bind"):
            loss.bind(spec)

    def forward(self, batch: Batch | None, observer: Observer | None = None) -> LossSum:
        """The loss's sums for a batch; an evaluation passes an observer, which sees what the loss would, or, without a
        batch, the loss and the projection alone."""
        if batch is None:
            assert observer is not None
            return observer(None, self.loss, self.projection)
        features = self.task.features(self.backbone, batch, self.loss.previous_tokens)
        if self.teacher is not None:
            taught = self.teacher.hidden(batch)
            self.loss.teach(self.teacher.log_probs)
            features = replace(features, extras={**features.extras, "teacher_hidden": taught})
        if observer is not None:
            return observer(features, self.loss, self.projection)
        result: LossSum = self.loss(features, self.projection)
        return result

    def hash_start(self, num_classes: int) -> dict[str, str]:
        """The hashes of the initial weights, for the record: of the backbone; of the projection, where the loss wants
        an output a class and not a number of its own; and of the loss, where it has any."""
        hashes = {"backbone_init": hash_weights(self.backbone)}
        if len(self.projection.weight) == num_classes:
            hashes["projection_init"] = hash_weights(self.projection)
        if self.loss.state_dict():
            hashes["loss_init"] = hash_weights(self.loss)
        return hashes

    def compile_layers(self) -> None:
        """Compile the forward of each of the body's layers, not the modules: the names of the weights stay as they are,
        and hooks on hidden states stay outside."""
        for layer in self.backbone.layers:
            layer.forward = torch.compile(layer.forward)

    def sizes(self) -> dict[str, int]:
        """The number of outputs, which for tokens is the vocabulary's, and of all parameters, the loss's included."""
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return {"vocab_size": self.projection.weight.shape[0], "parameters": parameters}

    def flops_per_token(self) -> int:
        """Of one forward and backward pass, output projection included, and a teacher's forward pass."""
        own = self.backbone.flops_per_token() + 6 * self.projection.weight.numel()
        return own + (self.teacher.flops_per_token() if self.teacher is not None else 0)
