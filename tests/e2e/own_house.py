"""A house that a person furnishes alone: an LSTM, a data module, and two tasks, regression and tagging."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    DataModule,
    Features,
    LossSum,
    Meter,
    Metric,
    Projection,
    Share,
    SplitInfo,
    Subset,
    TargetKind,
    Task,
)
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import CLASS_METRICS
from losslab.metrics.temperature import Temperature

SIZES = {"train": 48, "val": 21, "test": 17}
LENGTH, COLOURS = 6, 5


class MyLSTM(nn.Module):
    """Reads numbers; one hidden state a step, or the last one alone."""

    def __init__(self, *, width: int, last: bool, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.last = last
        self.input = nn.Linear(2, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden = self.dropout(self.lstm(self.input(inputs["frames"]))[0])
        return hidden[:, -1] if self.last else hidden


class MyData(DataModule):
    """Made-up sequences of points; the target is their sum, or a colour at each step."""

    def __init__(self, *, kind: str, noise: float = 0.1, batch_size: int = 8, val_batch_size: int = 4) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size)
        self.kind = kind
        self.noise = noise

    def content_hashes(self, task: Task) -> dict[str, str]:
        return {"data.kind": self.kind}

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        rng = np.random.default_rng(0)
        self.frames = {split: rng.normal(size=(size, LENGTH, 2)).astype(np.float32) for split, size in SIZES.items()}
        steps = 1 if self.kind == "sum" else LENGTH
        colours = torch.from_numpy(self.colours(self.frames["train"]).ravel())
        return DataInfo(
            splits={split: SplitInfo(size * steps, units=size) for split, size in SIZES.items()},
            mean_positions=steps,
            num_values=1 if self.kind == "sum" else None,
            num_classes=None if self.kind == "sum" else COLOURS,
            class_counts=None if self.kind == "sum" else torch.bincount(colours, minlength=COLOURS),
            artifacts={} if self.kind == "sum" else {"labels.json": '["a", "b", "c", "d", "e"]'},
        )

    @staticmethod
    def colours(frames: np.ndarray) -> np.ndarray:
        return (np.abs(frames).sum(-1) * 2).astype(np.int64).clip(max=COLOURS - 1)

    def batch(self, split: str, rows: np.ndarray) -> Batch:
        frames = self.frames[split][rows]
        extras = {}
        if self.kind == "sum":
            target = torch.from_numpy(frames.sum((1, 2))[:, None])
            weight = torch.ones(len(rows))
        else:
            target = torch.from_numpy(self.colours(frames))
            weight = torch.ones(len(rows), LENGTH)
            weight[:, 0] = 0  # ignored
            numbers = torch.from_numpy(rows)[:, None].expand(-1, LENGTH)
            extras = {"fit": (numbers % 2).to(torch.uint8), "unit": numbers}
        return Batch({"frames": torch.from_numpy(frames)}, target, weight, extras)

    def train_batch(self, step: int, share: Share) -> Batch:
        order = np.random.default_rng([self.seed, step]).permutation(SIZES["train"])[: self.batch_size]
        return self.batch("train", order[share.rows(self.batch_size)])

    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterable[Batch]:
        rows = np.arange(SIZES[split])[share.rank :: share.ranks]
        for start in range(0, len(rows), self.val_batch_size):
            yield self.batch(split, rows[start : start + self.val_batch_size])


class Errors(Meter):
    """Root mean squared error, and the largest."""

    def __init__(self) -> None:
        self.squares, self.count, self.largest = (torch.zeros((), dtype=torch.float64) for _ in range(3))
        self.all = torch.zeros(0, dtype=torch.float64)

    def update(self, features: Features, loss: nn.Module, projection: Projection) -> LossSum:
        features = features.kept()
        found = loss.predict_values(loss.scores(features.hidden, projection))
        errors = (found - features.target).double().abs()[:, 0]
        self.squares = self.squares + errors.square().sum()
        self.count = self.count + len(errors)
        self.largest = torch.maximum(self.largest, errors.max()) if len(errors) else self.largest
        self.all = torch.cat([self.all, errors])
        return loss(features, projection)

    def states(self):
        return {
            "squares": (self.squares, "sum"),
            "count": (self.count, "sum"),
            "largest": (self.largest, "max"),
            "all": (self.all, "cat"),
        }

    def values(self) -> dict[str, float]:
        return {
            "rmse": float((self.squares / self.count).sqrt()),
            "largest_error": float(self.largest),
            "median_error": float(self.all.sort().values[len(self.all) // 2]),
        }


class Regression(Task):
    accepts = frozenset({TargetKind.VALUES})
    metrics = (
        Metric("rmse", "root mean squared error", "cm", False, 0.05, frozenset({"terminal", "events", "curves"})),
        Metric("largest_error", "largest error", "cm", None),
        Metric("median_error", "median error", "cm", False),
    )
    primary = "rmse"

    def target_size(self, info: DataInfo) -> int:
        assert info.num_values is not None
        return info.num_values

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        return Features(backbone(batch.inputs), batch.target, batch.weight)

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> Errors:
        return Errors()


class Tagging(Task):
    """Its best checkpoint is the one with the largest accuracy."""

    accepts = frozenset({TargetKind.CLASSES})
    metrics = CLASS_METRICS
    primary = "top1"

    def target_size(self, info: DataInfo) -> int:
        assert info.num_classes is not None
        return info.num_classes

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        extras = {name: value.flatten() for name, value in batch.extras.items()}
        return Features(backbone(batch.inputs).flatten(0, 1), batch.target.flatten(), batch.weight.flatten(), extras)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ClassMeter:
        return ClassMeter(info, split, calibration["scale"], thorough=thorough)
