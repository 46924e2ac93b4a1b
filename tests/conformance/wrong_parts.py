"""A person's own models, data and tasks that are wrong, each in one way, with the check that says so and its words."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from right_parts import LSTM, Encoder, Pool
from torch import Tensor, nn

from losslab.models.projection import OutputProjection

REFUSED = "refused"
"""In place of a check: before anything computes."""


class Wrong(NamedTuple):
    part: type
    check: str
    said: str
    train: str = ""
    """What `losslab train` does, where that is the cheap part of it: `refuses`, `notes`."""
    said_in_training: str = ""
    """Its words, where it meets another fault first."""


class NoWidth(LSTM):
    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        del self.width


class NoSuper(nn.Module):
    def __init__(self, *, vocab_size: int) -> None:
        self.width = vocab_size


class NoForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 8


class TakesTokens(LSTM):
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward({"tokens": tokens})


class StrangeBlocks(LSTM):
    def blocks(self) -> list[nn.Module]:
        return [nn.Linear(2, 2)]


class WantsIds(LSTM):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward({"tokens": inputs["input_ids"]})


class TimeFirst(LSTM):
    """As PyTorch's own are, unless batch_first=True: [T, B, D]."""

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward(inputs).transpose(0, 1)


class Mixes(Encoder):
    """PyTorch's own without batch_first=True: it attends over the samples of the batch."""

    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size, dropout=0.0)
        layer = nn.TransformerEncoderLayer(self.width, 2, 32, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = self.encoder(self.embedding(inputs["tokens"]))
        return hidden


class Logits(LSTM):
    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        self.lm_head = nn.Linear(self.width, vocab_size)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.lm_head(super().forward(inputs))
        return logits


class OtherWidth(LSTM):
    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        self.width = 32


class NotFinite(LSTM):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward(inputs) / 0


class Unseeded(LSTM):
    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(4)))
        nn.init.normal_(self.embedding.weight, generator=generator)


class FixedSeed(LSTM):
    def __init__(self, *, vocab_size: int) -> None:
        torch.manual_seed(42)
        super().__init__(vocab_size=vocab_size)


class BatchNorm(LSTM):
    """Over samples and positions: it reads ahead, too."""

    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        self.norm = nn.BatchNorm1d(self.width)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = self.norm(super().forward(inputs).transpose(1, 2)).transpose(1, 2)
        return hidden


class Centred(LSTM):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden = super().forward(inputs)
        return hidden - hidden.mean(dim=0) if self.training else hidden


class ReadsAhead(Encoder):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = self.encoder(self.embedding(inputs["tokens"]))
        return hidden


class ReadsAheadBehindAGate(LSTM):
    """Nothing of it is seen at the first step: its gate begins at 0."""

    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden = super().forward(inputs)
        return hidden + self.gate * hidden.roll(-1, 1)


class IgnoresTheMask(Pool):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward({**inputs, "mask": torch.ones_like(inputs["mask"])})


class TiedToAnother(LSTM):
    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        return OutputProjection(nn.Parameter(torch.zeros(num_outputs + 1, self.width)))


class PlainState(LSTM):
    """Random features that no checkpoint holds."""

    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        self.shift = torch.randn(self.width)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward(inputs) + self.shift


class LooseBuffer(LSTM):
    shift: Tensor

    def __init__(self, *, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size)
        self.register_buffer("shift", torch.randn(self.width), persistent=False)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward(inputs) + self.shift


class AlwaysDrops(LSTM):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return nn.functional.dropout(super().forward(inputs), 0.1)


class Detached(LSTM):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = self.layers(self.embedding(inputs["tokens"]).detach())[0]
        return hidden


class WritesIntoInputs(LSTM):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        inputs["tokens"][:, 0] = 0
        return super().forward(inputs)


class Raises(LSTM):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward(inputs) @ torch.ones(3, 3)


MODELS: list[Any] = [
    Wrong(NoWidth, REFUSED, r"model: NoWidth has no width: set self\.width", "refuses"),
    Wrong(NoSuper, REFUSED, r"NoSuper\.__init__ does not call super\(\)\.__init__\(\)", "refuses"),
    Wrong(NoForward, REFUSED, r"NoForward has no forward\(inputs\)", "refuses"),
    Wrong(TakesTokens, REFUSED, r"TakesTokens\.forward takes \(tokens, mask\), and is called with one dict", "refuses"),
    Wrong(StrangeBlocks, REFUSED, r"StrangeBlocks\.blocks\(\) returns a Linear that is none of its sub", "refuses"),
    Wrong(WantsIds, "hidden states", r"reads the input 'input_ids', and this data and task give tokens", "refuses"),
    Wrong(TimeFirst, "hidden states", r"shape \[\d+, \d, 16\] for \d samples; .*B=\d and D=width=16", "refuses"),
    Wrong(Mixes, "other samples", r"in evaluation mode .* depend on the other samples .*batch_first=True", "refuses"),
    Wrong(Logits, "hidden states", r"these look like logits: .*LogitsAdapter", "refuses"),
    Wrong(OtherWidth, "hidden states", r"D=width=32", "refuses"),
    Wrong(NotFinite, "hidden states", r"not finite with the initial weights", "refuses"),
    Wrong(Unseeded, "seeds", r"under one seed it has two embedding\.weight: .*os\.urandom", "refuses"),
    Wrong(FixedSeed, "seeds", r"two seeds give the same weights", "notes"),
    Wrong(
        BatchNorm,
        "other samples",
        r"in training mode .* other samples of its batch \(batch norm",
        "refuses",
        said_in_training=r"before position 1 change",
    ),
    Wrong(Centred, "other samples", r"in training mode .* other samples of its batch \(batch norm", "notes"),
    Wrong(ReadsAhead, "causality", r"before position 1 change with the inputs from there on, and task=", "refuses"),
    Wrong(ReadsAheadBehindAGate, "causality", r"before position 1 change", "refuses"),
    Wrong(TiedToAnother, "projection", r"TiedToAnother has \d+ outputs of width 16, and task and loss want", "refuses"),
    Wrong(PlainState, "saved state", r"a tensor in a plain attribute or list is drawn or changed", "refuses"),
    Wrong(LooseBuffer, "saved state", r"the buffer shift \(persistent=False\) is drawn or changed", "refuses"),
    Wrong(AlwaysDrops, "modes", r"in evaluation mode two passes differ", "refuses"),
    Wrong(Detached, "gradients", r"no gradient reaches embedding\.weight: it is never used", "notes"),
    Wrong(WritesIntoInputs, "hidden states", r"forward changes its input 'tokens' in place", "refuses"),
    Wrong(Raises, "hidden states", r"forward raises RuntimeError: Expected size", "refuses"),
]
MASKED = [Wrong(IgnoresTheMask, "mask", r"positions that the mask excludes changes the hidden states", "refuses")]
"""Models of Sentences and Tagging; those of MODELS read tokens."""
