"""Backbone, projection and loss in one module: what DDP wraps, and what `fully_shard` makes the root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    Features,
    LossSum,
    OutputSpec,
    Projection,
    Task,
    Teacher,
    blocks_of,
    flops_of,
    is_constant,
    projection_of,
)
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.r_drop import TERM
from losslab.losses.targets import in_kind
from losslab.models.projection import OutputProjection
from losslab.products import quicken
from losslab.training.constant_rows import ConstantRows
from losslab.training.long_inputs import reader_of
from losslab.training.mixing import ReadOnce, joined, parts_of
from losslab.training.random import global_stream, hash_weights
from losslab.training.two_passes import TwoPasses

Observer = Callable[[Any, Any, Projection], LossSum]
"""Called with features (None where there is no batch), the loss and the projection."""


class Network(nn.Module):
    """Nothing reads a weight outside this module's forward, so that wrappers see every use.

    Args:
        info: what the data says of itself.
        head_init: the stream for an untied projection and for parameters of the loss.
        r_drop: α of R-Drop in training; 0: one pass over each batch.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        loss: Loss,
        task: Task,
        info: DataInfo,
        head_init: torch.Generator,
        r_drop: float = 0.0,
    ) -> None:
        super().__init__()
        task.bind(info)
        self.target_size = task.target_size(info)
        num_outputs = loss.num_outputs(self.target_size)
        width: int = backbone.width  # type: ignore[assignment]
        quicken(backbone)
        self.backbone = backbone
        with global_stream(head_init.initial_seed(), "projection"):
            self.projection = projection_of(backbone, num_outputs, head_init, OutputProjection)
        check_projection(self.projection, backbone, num_outputs, width)
        self.loss = loss
        self.task = task
        self.vocab_size = info.vocab_size
        self.teacher: Teacher | None = None
        spec = OutputSpec(
            num_outputs=num_outputs, hidden_size=width, generator=head_init,
            class_counts=info.class_counts, value_range=task.value_range(info),
            size=self.target_size, labels=info.labels,
        )  # fmt: skip
        with global_stream(head_init.initial_seed(), "bind"):
            loss.bind(spec)
        self.passes = TwoPasses(loss, r_drop) if r_drop else None
        self._constant = ConstantRows(backbone) if is_constant(backbone) else None

    def forward(self, batch: Batch | None, observer: Observer | None = None) -> LossSum:
        """The loss's sums for a batch; an evaluation passes an observer, which sees what the loss would, or, without a
        batch, the loss and the projection alone."""
        if batch is None:
            assert observer is not None
            return observer(None, self.loss, self.projection)
        taught = {} if self.teacher is None else {"teacher_hidden": self._taught(batch, self.teacher)}
        if observer is not None:
            return observer(self._features(batch, taught), self.loss, self.projection)
        if self.passes is not None and self.training:
            return self.passes.run(partial(self._features, batch, taught), self.projection)
        return self._summed(self._features(batch, taught))

    def _summed(self, features: Features) -> LossSum:
        """The loss's sums over all that the task gives it to choose from."""
        parts = self.task.choices(features, self.projection)
        first, *others = (self.loss(part, projection) for part, projection in parts)
        result: LossSum = first
        for other in others:
            result = result.plus(other)
        return result

    def _features(self, batch: Batch, taught: dict[str, Tensor]) -> Features:
        """One pass over a batch."""
        kind = self.loss.target_kind
        parts = parts_of(batch)
        whole = self._constant if self._constant and self.training else reader_of(self._body(), batch)
        body = whole if len(parts) == 1 else ReadOnce(whole, self.vocab_size)
        found = [self.task.features(body, part, kind, self.loss.needs).known(part) for part in parts]
        features = in_kind(joined(found), kind, self.target_size)
        return replace(features, extras={**features.extras, **taught}) if taught else features

    def _taught(self, batch: Batch, teacher: Teacher) -> Tensor:
        if len(parts_of(batch)) > 1:
            raise UserError("data.augment.mixup does not go with a loss that learns from a teacher: leave one out")
        self.loss.teach(teacher.log_probs)
        return teacher.hidden(batch)

    @property
    def reads_step(self) -> bool:
        """Whether `prepare_step` is to be called before each optimizer step."""
        return self.loss.reads_step or (self.passes is not None and self.passes.reads_step)

    def prepare_step(self, target: Tensor, weight: Tensor) -> None:
        """Receive target [N] and weight [N] of all positions of the next optimizer step, over micro-batches and
        ranks."""
        if self.loss.reads_step:
            self.loss.prepare_step(target, weight)
        if self.passes is not None:
            self.passes.prepare_step(target, weight)

    @property
    def terms(self) -> tuple[str, ...]:
        """The parts of the objective that are logged apart."""
        return (*self.loss.terms, *(() if self.passes is None else (TERM,)))

    def _body(self) -> Backbone:
        backbone: Backbone = self.backbone  # type: ignore[assignment]
        return backbone

    def hash_start(self) -> dict[str, str]:
        """The hashes of the initial weights, for the record: of the backbone; of the projection, where the loss needs
        an output a class or value and not a number of its own; and of the loss, where it has any."""
        hashes = {"backbone_init": hash_weights(self.backbone)}
        if len(self.projection.weight) == self.target_size:
            hashes["projection_init"] = hash_weights(self.projection)  # type: ignore[arg-type]
        if self.loss.state_dict():
            hashes["loss_init"] = hash_weights(self.loss)
        return hashes

    def compile_layers(self) -> None:
        """Compile the forward of each of the body's layers, not the modules: the names of the weights stay as they are,
        and hooks on hidden states stay outside."""
        for layer in blocks_of(self.backbone):
            layer.forward = torch.compile(layer.forward)

    def checkpoint_layers(self) -> None:
        """Keep no activations inside the body's layers (Chen et al. 2016, arXiv:1604.06174): the backward pass computes
        them again, from the same random state. The names of the weights stay as they are."""
        for layer in blocks_of(self.backbone):
            layer.forward = partial(_without_activations, layer.forward)

    def sizes(self, info: DataInfo) -> dict[str, int]:
        """The vocabulary, if there is one, the number of outputs where that is another, and the number of all
        parameters, the loss's included."""
        outputs, vocabulary = self.projection.weight.shape[0], info.vocab_size
        sizes = {} if vocabulary is None else {"vocab_size": vocabulary}
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return sizes | ({} if outputs == vocabulary else {"outputs": outputs}) | {"parameters": parameters}

    def flops_per_position(self, info: DataInfo, *, predicting: bool = False) -> int | None:
        """Floating-point operations of one forward and backward pass, output projection included, and a teacher's
        forward pass; None where a model does not give its own. With R-Drop: of two passes, each projected twice.

        Args:
            predicting: without what a loss computes in training alone.
        """
        own = flops_of(self.backbone)
        taught = 0 if self.teacher is None else self.teacher.flops_per_position()
        if own is None or taught is None:
            return None
        passes, projections = (1, 1) if self.passes is None else (2, 4)
        further = 0 if predicting else self.loss.further_flops(*self.projection.weight.shape)
        own = int(passes * own * info.mean_share / info.mean_positions)
        return own + projections * 6 * self.projection.weight.numel() + passes * further + taught


def _without_activations(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def check_projection(projection: Projection, backbone: nn.Module, num_outputs: int, width: int) -> None:
    """Refuse a projection of another size than the loss needs: one that is tied to an embedding, for the most part.

    Raises:
        UserError: naming both sizes.
    """
    shape = tuple(projection.weight.shape)
    if shape != (num_outputs, width):
        hint = "output_projection(num_outputs, generator) returns one of that size; without it the model gets one"
        if getattr(backbone, "pretrained_head", False):
            hint = "it is the model's own, give it a new one (model.head=fresh)"
        elif getattr(backbone, "tie_embeddings", False):
            hint = "it is tied to the embedding, untie it (model.tie_embeddings=false)"
        raise UserError(
            f"model: the output projection of {type(backbone).__name__} has {shape[0]:,} outputs of width {shape[1]:,}"
            f", and task and loss want {num_outputs:,} of width {width:,}: {hint}"
        )
