"""The contract of a model: named inputs → hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from losslab.contracts.values import Batch, Projection


class Backbone(Protocol):
    """A module that maps the inputs of a batch to hidden states. It depends on no loss.

    A person's model needs `width` and `forward`. It may have, beside them:
        `output_projection(num_outputs, generator) -> Projection`: default: a projection of its own, N(0, 0.02²).
        `blocks() -> Sequence[nn.Module]`: its layers in their order, which FSDP shards, `trainer.compile` compiles and
            gradient norms are measured at; each takes hidden states first, and returns them. Default: none.
        `flops_per_sample() -> int`: of a forward and backward pass without the projection. Default: unknown.
        `context`: the longest sequence that it reads. Default: any.
        `causal`: whether a hidden state depends on inputs up to its position alone; a task that predicts what follows
            refuses a model that declares False, and one that hides tokens a model that declares True. Default: unknown,
            and tried.
        `reads_source`: whether it reads `source` and `source_mask` beside `tokens`; a task that gives a source refuses
            a model that does not declare True, and other tasks one that does. Default: False.
        `mixes_samples`: whether hidden states in training depend on the other samples of a batch, as with batch norm;
            if so, a batch split over ranks or micro-batches is refused. Default: False.
        `constant`: whether nothing of it is trained and it draws nothing, so that equal inputs have equal hidden states
            throughout a run: training then computes those of each row once. Default: False.
        `new_cache()`: a cache of its own kind, for generation. The model is then called as `model(inputs, cache)`, for
            the tokens after those that this cache has seen, and returns their hidden states. Default: every token that
            is generated takes a pass over the whole window. Its `reorder(rows)` makes the sample `rows[i]` number i,
            for beam search; a cache, or list of them, without one is not used there.
        `begin()`: take the weights that it begins with out of files. Called once, where a run begins, and not where a
            checkpoint's are put in. With it go two class methods over the bound node of its configuration:
            `complete(node, task)` returns the node with what the files say, `context` and the sizes of the layers, so
            that the constructor needs no file; and `content_hashes(node) -> dict[str, str]`, key → SHA-256 of the
            content, which takes the place of the key's value in the run's identity. `tokenizer(node) -> str`: the path
            of the tokenizer.json that data.tokenizer=pretrained means.
    Its constructor may take `vocab_size`, `source_vocab_size` and `frame_width`, which are known once the data is, and
    `generator`, the backbone_init stream; what it draws from torch's global generator instead follows the seed, too.
    """

    width: int
    """D: the size of its hidden states."""

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """[B, T, D], or [B, D] where a sample has one position."""
        ...


class Teacher(Protocol):
    """A trained network that a loss learns from; no module, so that nothing of it is trained, wrapped or saved."""

    def hidden(self, batch: Batch) -> Tensor:
        """[N, D'], for the positions that the task selects."""
        ...

    def log_probs(self, hidden: Tensor) -> Tensor:
        """[N, D'] → its predictions, [N, V]."""
        ...

    def flops_per_position(self) -> int | None:
        """Floating-point operations of one forward pass; None where they are unknown."""
        ...


def blocks_of(backbone: Any) -> Sequence[nn.Module]:
    """The layers of a backbone, or none."""
    return backbone.blocks() if hasattr(backbone, "blocks") else ()


def context_of(backbone: Any) -> int | None:
    """The longest sequence that a backbone reads, where it says so."""
    context = getattr(backbone, "context", None)
    return context if isinstance(context, int) else None


def reads_ahead(backbone: Any) -> bool:
    """Whether a backbone says that its hidden states depend on inputs after their position."""
    return getattr(backbone, "causal", None) is False


def reads_back_alone(backbone: Any) -> bool:
    """Whether a backbone says that its hidden states depend on inputs up to their position alone."""
    return getattr(backbone, "causal", None) is True


def reads_source(backbone: Any) -> bool:
    """Whether a backbone says that it reads a source beside its tokens."""
    return getattr(backbone, "reads_source", False) is True


def mixes_samples(backbone: Any) -> bool:
    """Whether a backbone says that, in training, its hidden states depend on the other samples of a batch."""
    return getattr(backbone, "mixes_samples", False) is True


def is_constant(backbone: Any) -> bool:
    """Whether a backbone says that equal inputs have equal hidden states throughout a run."""
    return getattr(backbone, "constant", False) is True


def cache_of(backbone: Any) -> Any:
    """A new cache of what a backbone has computed, or None where its `forward` takes none."""
    takes_one = hasattr(backbone, "new_cache") and len(signature(backbone.forward).parameters) > 1
    return backbone.new_cache() if takes_one else None


def flops_of(backbone: Any) -> int | None:
    """Floating-point operations a sample, where a backbone gives them."""
    return backbone.flops_per_sample() if hasattr(backbone, "flops_per_sample") else None


def projection_of(backbone: Any, num_outputs: int, generator: torch.Generator, default: type[Projection]) -> Projection:
    """The output projection that a backbone brings along, or one of the default class."""
    if hasattr(backbone, "output_projection"):
        projection: Projection = backbone.output_projection(num_outputs, generator)
        return projection
    return default.initialised(num_outputs, backbone.width, 0.02, generator)  # type: ignore[attr-defined,no-any-return]
