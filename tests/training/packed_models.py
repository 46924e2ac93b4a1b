"""Small models that keep the documents of a window apart, and some that do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Apart(nn.Module):
    """One layer of attention inside each document, with positions that begin again."""

    causal = True

    def __init__(self, *, width: int = 16, context: int = 64, vocab_size: int) -> None:
        super().__init__()
        self.width, self.context = width, context
        self.embedding = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(context, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = inputs["tokens"]
        segments, positions = self.places(inputs)
        hidden = self.embedding(tokens) + self.position(positions)
        q, k, v = self.qkv(hidden).chunk(3, dim=-1)
        seen = segments[:, :, None] == segments[:, None]
        if self.causal:
            seen = seen & torch.ones_like(seen[0]).tril()
        if "mask" in inputs:
            seen = seen & (inputs["mask"][:, None] | torch.eye(tokens.shape[1], dtype=torch.bool))
        mixed: Tensor = hidden + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=seen))
        return mixed

    def places(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The document of each token, and its place there."""
        tokens = inputs["tokens"]
        segments = inputs.get("segments", torch.zeros_like(tokens))
        at = torch.arange(tokens.shape[1]).expand_as(tokens)
        begins = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)
        return segments, at - torch.where(begins, at, 0).cummax(dim=1).values


class BothSides(Apart):
    """An encoder."""

    causal = False


class Ignores(Apart):
    def places(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return super().places({"tokens": inputs["tokens"]})


class GoesOn(Apart):
    """Its positions do not begin again."""

    def places(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return super().places(inputs)[0], super().places({"tokens": inputs["tokens"]})[1]


class LooksAhead(Apart):
    """The document before sees the one after it."""

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden = super().forward(inputs)
        return hidden + 0.1 * hidden.mean(dim=1, keepdim=True)
