"""A person's own models, data and tasks that are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    DataModule,
    Features,
    Share,
    SplitInfo,
    Subset,
    TargetKind,
    Task,
    flat_hidden,
)
from losslab.data.samples import SamplesDataModule
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import METRICS, PRIMARY
from losslab.metrics.temperature import Temperature


class LSTM(nn.Module):
    def __init__(self, *, width: int = 16, vocab_size: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocab_size, width)
        self.layers = nn.LSTM(width, width, num_layers=2, batch_first=True)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = self.layers(self.embedding(inputs["tokens"]))[0]
        return hidden


class Remembering(LSTM):
    """It keeps its state for generation."""

    def new_cache(self) -> dict[str, Any]:
        return {"state": None}

    def forward(self, inputs: dict[str, Tensor], cache: dict[str, Any] | None = None) -> Tensor:
        before = None if cache is None else cache["state"]
        hidden, after = self.layers(self.embedding(inputs["tokens"]), before)
        if cache is not None:
            cache["state"] = after
        states: Tensor = hidden
        return states


class GRU(LSTM):
    def __init__(self, *, width: int = 16, vocab_size: int) -> None:
        super().__init__(width=width, vocab_size=vocab_size)
        self.layers = nn.GRU(width, width, batch_first=True)  # type: ignore[assignment]


class Encoder(nn.Module):
    """PyTorch's own, with a causal mask."""

    def __init__(self, *, width: int = 16, vocab_size: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocab_size, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = inputs["tokens"]
        ahead = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        hidden: Tensor = self.encoder(self.embedding(tokens), mask=ahead, is_causal=True)
        return hidden

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.encoder.layers)


class DropPath(LSTM):
    """Reads a value in its constructor, as many drop paths do; the meta device has none."""

    def __init__(self, *, width: int = 16, vocab_size: int) -> None:
        super().__init__(width=width, vocab_size=vocab_size)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 2)]
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        embedded = self.embedding(inputs["tokens"])
        kept = torch.rand(len(embedded), 1, 1) >= (self.rates[1] if self.training else 0.0)
        branch: Tensor = embedded + self.gate * kept * self.layers(embedded)[0]
        return branch


class Pool(nn.Module):
    """Attends in both directions, and reads the mask."""

    def __init__(self, *, width: int = 16, vocab_size: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocab_size, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden = self.embedding(inputs["tokens"])
        mixed, _ = self.attention(hidden, hidden, hidden, key_padding_mask=inputs["mask"] == 0, need_weights=False)
        return hidden + mixed  # type: ignore[no-any-return]


class Sentences(SamplesDataModule):
    """Sequences of numbers, and whether each of them is odd."""

    vocab_size = 40
    num_classes = 2

    def __init__(self, *, batch_size: int = 6, val_batch_size: int = 4, num_workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size, num_workers=num_workers)

    def datasets(self) -> Mapping[str, Sequence[Any]]:
        return {
            split: [[(7 * i + 3 * j + start) % 40 for j in range(2 + i % 5)] for i in range(size)]
            for split, size, start in (("train", 50, 0), ("val", 13, 1), ("test", 11, 2))
        }


class Rows(DataModule):
    """A data module from the ground up: rows of four numbers."""

    def __init__(self, *, batch_size: int = 6, val_batch_size: int = 4) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size)
        self.rows: dict[str, Tensor] = {}

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        for split, size, start in (("train", 50, 0), ("val", 13, 1), ("test", 11, 2)):
            self.rows[split] = (torch.arange(size)[:, None] * 7 + torch.arange(4) * 3 + start) % 40
        splits = {split: SplitInfo(rows.numel(), len(rows)) for split, rows in self.rows.items()}
        return DataInfo(splits=splits, mean_positions=4, vocab_size=40, num_classes=2)

    def train_batch(self, step: int, share: Share) -> Batch:
        chosen = self.order(step)[share.rows(self.batch_size)]
        return self.batch("train", torch.from_numpy(chosen))

    def order(self, step: int) -> NDArray[np.int64]:
        """The samples of a batch."""
        return np.random.default_rng([self.seed, step]).integers(len(self.rows["train"]), size=self.batch_size)

    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterator[Batch]:
        numbers = torch.arange(len(self.rows[split]))[share.rank :: share.ranks]
        for i in range(0, len(numbers), self.val_batch_size):
            yield self.batch(split, numbers[i : i + self.val_batch_size])

    def batch(self, split: str, chosen: Tensor) -> Batch:
        tokens = self.rows[split][chosen]
        number = chosen[:, None].expand(tokens.shape)
        extras = {"id": number, "unit": number, "fit": (number + 1) % 2}
        weight = torch.ones(1).expand(tokens.shape)  # a view of one number
        return Batch({"tokens": tokens}, tokens % 2, weight, extras)


class Tagging(Task):
    """A class for each token: whether it is odd."""

    accepts = frozenset({TargetKind.CLASSES})
    metrics = METRICS
    primary = PRIMARY

    def target_size(self, info: DataInfo) -> int:
        assert info.num_classes is not None
        return info.num_classes

    def collate(self, examples: Sequence[Any]) -> Batch:
        longest = max(map(len, examples))
        tokens = torch.tensor([[*example, *[0] * (longest - len(example))] for example in examples])
        weight = (torch.arange(longest) < torch.tensor([[len(example)] for example in examples])).float()
        return Batch({"tokens": tokens, "mask": weight}, tokens % 2, weight, {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        hidden = flat_hidden(backbone(batch.inputs), batch.weight, backbone)
        extras = {name: value.flatten() for name, value in batch.extras.items()}
        return Features(hidden, batch.target.flatten(), batch.weight.flatten(), extras)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ClassMeter:
        return ClassMeter(info, split, calibration["scale"], thorough=thorough)
