"""Mixup where the model is: embeddings of two samples mixed, and their two targets side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from losslab.contracts import MIXED_SHARES, MIXED_TARGET, MIXED_TOKENS, MIXED_WEIGHT, Backbone, Batch, Features
from losslab.errors import UserError


def parts_of(batch: Batch) -> list[Batch]:
    """The batch; or, of mixed samples, one with the targets of each side, weighted by their shares."""
    if MIXED_TARGET not in batch.extras:
        return [batch]
    extras = {name: value for name, value in batch.extras.items() if name not in (MIXED_TARGET, MIXED_WEIGHT)}
    own = batch._replace(extras=extras)
    return [own, own._replace(target=batch.extras[MIXED_TARGET], weight=batch.extras[MIXED_WEIGHT])]


def joined(parts: list[Features]) -> Features:
    """Features one after the other."""
    if len(parts) == 1:
        return parts[0]
    return Features(
        hidden=torch.cat([part.hidden for part in parts]),
        target=torch.cat([part.target for part in parts]),
        weight=torch.cat([part.weight for part in parts]),
        extras={name: torch.cat([part.extras[name] for part in parts]) for name in parts[0].extras},
    )


class ReadOnce:
    """A backbone that runs for its first caller, and gives the same hidden states to the others.

    Args:
        vocab_size: V, by which the embedding of tokens is found.
    """

    def __init__(self, backbone: Backbone, vocab_size: int | None) -> None:
        self._backbone = backbone
        self._vocab_size = vocab_size
        self._hidden: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        if self._hidden is None:
            with mixed_embeddings(self._backbone, inputs, self._vocab_size):  # type: ignore[arg-type]
                self._hidden = self._backbone(inputs)
        return self._hidden


@contextmanager
def mixed_embeddings(backbone: nn.Module, inputs: dict[str, Tensor], vocab_size: int | None) -> Iterator[None]:
    """Let the embedding of tokens give, at each position, the embeddings of both samples weighted by their shares.

    Raises:
        UserError: where the model has no such embedding, or looks up other tokens in it.
    """
    if MIXED_TOKENS not in inputs:
        yield
        return
    name = type(backbone).__name__
    found = (module for module in backbone.modules() if isinstance(module, nn.Embedding))
    embedding = next((module for module in found if module.num_embeddings == vocab_size), None)
    if embedding is None:
        raise UserError(
            f"data.augment.mixup mixes embeddings of tokens, and {name} has no nn.Embedding of {vocab_size}"
        )
    seen = 0

    def mix(module: nn.Embedding, read: tuple[Tensor, ...], output: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        if read[0].shape != inputs[MIXED_TOKENS].shape:
            raise UserError(f"data.augment.mixup: {name} looks up other tokens in its embedding than the data's")
        own, other = inputs[MIXED_SHARES].to(output.dtype).unbind(-1)
        return own[..., None] * output + other[..., None] * module.forward(inputs[MIXED_TOKENS])

    handle = embedding.register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()
    if not seen:
        raise UserError(f"data.augment.mixup: {name} never called its embedding of tokens, so nothing was mixed")
