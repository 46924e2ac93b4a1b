"""The loop that one would write by hand, with every head that a peer has, for `scripts/benchmark step`: the decoder,
tokens, AdamW and clipping of losslab's. Each function is a variant of turns.py.

Of losslab they import the decoder alone, and so neither Lightning nor Hydra: what is resident is compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.tools.shape import ADAMW, CLIP, Shape
from benchmarks.tools.turns import NotHere, Turns
from losslab.models.decoder import Decoder

CHUNK = 256
"""Positions at once on a CPU, for the peers that have chunks: the size at which torch's own was quickest here."""
CHUNKS = 8
"""Chunks of a batch on a GPU, as torchtune and torchtitan have them."""
Head = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Hidden states [N, D], weight [V, D] and targets [N] → the mean loss."""


class Model(nn.Module):
    """The decoder as anybody would train it: a mean loss of tokens [B, T] and targets [B, T]."""

    def __init__(self, shape: Shape, head: Head) -> None:
        super().__init__()
        self.decoder = Decoder(
            num_layers=shape.layers,
            num_heads=shape.heads,
            width=shape.width,
            context=shape.context,
            vocab_size=shape.vocab_size,
            generator=torch.Generator().manual_seed(0),
        )
        self.head = head

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        hidden = self.decoder({"tokens": input_ids}).flatten(0, 1)
        return self.head(hidden, self.decoder.embedding.weight, labels.flatten())


def dense(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight), target)


def loop(
    shape: Shape, turns: Turns, model: nn.Module, forward: Callable[[Tensor, Tensor], Tensor] | None = None
) -> None:
    """Steps of `forward`, which is the model where nothing else is given: tokens and targets [B, T] → the mean loss."""
    forward = model if forward is None else forward
    model.to(shape.device)
    # nanoGPT, litgpt and transformers fuse AdamW on a GPU; on a CPU torch's own default is what people have.
    optimizer = torch.optim.AdamW(model.parameters(), fused=True if shape.on_card else None, **ADAMW)
    batches = itertools.cycle(shape.tokens())
    for _ in turns:
        tokens, target = (each.to(shape.device, non_blocking=True) for each in next(batches))
        with shape.autocast():
            loss = forward(tokens, target)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()


def plain(shape: Shape, turns: Turns) -> None:
    """F.cross_entropy of all logits."""
    loop(shape, turns, Model(shape, dense))


def compiled(shape: Shape, turns: Turns) -> None:
    """The plain loop's model and loss under torch.compile; its compilation is among the steps that do not count."""
    model = Model(shape, dense)
    loop(shape, turns, model, torch.compile(model))


def linear_cross_entropy(shape: Shape, turns: Turns) -> None:
    """torch's own head in chunks."""
    if not hasattr(F, "linear_cross_entropy"):
        raise NotHere(f"torch {torch.__version__} has no F.linear_cross_entropy")

    def head(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=_chunk(shape))
        return F.linear_cross_entropy(hidden, weight, target, options=options)

    loop(shape, turns, Model(shape, head))


def chunked(shape: Shape, turns: Turns) -> None:
    """The head in chunks that are computed again in the backward pass, a wrapper as torchtune and torchtitan have."""

    def one(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight), target, reduction="sum")

    def head(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        size = _chunk(shape)
        parts = zip(hidden.split(size), target.split(size), strict=True)
        sums = [checkpoint(one, part, weight, own, use_reentrant=False) for part, own in parts]
        return torch.stack(sums).sum() / len(target)

    loop(shape, turns, Model(shape, head))


def liger(shape: Shape, turns: Turns) -> None:
    """liger-kernel's fused head, which casts to autocast's type by itself."""
    if find_spec("liger_kernel") is None:
        raise NotHere("liger-kernel is not installed")
    from liger_kernel.transformers.fused_linear_cross_entropy import (  # type: ignore[import-not-found]
        LigerFusedLinearCrossEntropyLoss,
    )

    fused = LigerFusedLinearCrossEntropyLoss()
    loop(shape, turns, Model(shape, lambda hidden, weight, target: fused(weight, hidden, target)))


def cut(shape: Shape, turns: Turns) -> None:
    """Apple's kernels (Wijmans et al. 2024, arXiv:2411.09009). They take half precision and do not read autocast, which
    would cast the operands of F.linear in the same way."""
    if find_spec("cut_cross_entropy") is None:
        raise NotHere("cut-cross-entropy is not installed")
    from cut_cross_entropy import linear_cross_entropy  # type: ignore[import-not-found]

    def head(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = linear_cross_entropy(hidden.bfloat16(), weight.bfloat16(), target)
        return loss

    loop(shape, turns, Model(shape, head))


def _chunk(shape: Shape) -> int:
    return shape.positions // CHUNKS if shape.on_card else CHUNK
