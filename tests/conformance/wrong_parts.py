"""A person's own models, data and tasks that are wrong, each in one way, with the check that says so and its words."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from right_parts import LSTM, Encoder, Pool, Remembering, Rows, Tagging
from torch import Tensor, nn

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    DataModule,
    Features,
    LossSum,
    Projection,
    Share,
    Subset,
    TargetKind,
    Task,
    no_objective,
)
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import METRICS, PRIMARY
from losslab.metrics.temperature import Temperature
from losslab.models.projection import OutputProjection

REFUSED = "refused"
"""Instead of a check: before anything computes."""


class Wrong(NamedTuple):
    part: type
    check: str
    said: str
    train: str = ""
    """The outcome of `losslab train`, where that is the cheap part of it: `refuses`, `notes`."""
    said_in_training: str = ""
    """Its words, where it meets another fault first."""


class Forgets(Remembering):
    def new_cache(self) -> dict[str, Any]:
        class Forgetful(dict[str, Any]):
            def __setitem__(self, name: str, value: Any) -> None:
                pass

        return Forgetful(state=None)


class CannotGoOn(Remembering):
    def new_cache(self) -> dict[str, Any]:
        return {}


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


class TakesIds(LSTM):
    """A function of ids, as most modules are."""

    def forward(self, ids: Tensor) -> Tensor:  # type: ignore[override]
        return self.layers(self.embedding(ids))[0]  # type: ignore[no-any-return]


class Raises(LSTM):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return super().forward(inputs) @ torch.ones(3, 3)


class NoTrainBatch(DataModule):
    def __init__(self, *, batch_size: int = 6) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=4)


class NoBatchSize(Rows):
    def __init__(self, *, batch_size: int = 6) -> None:
        pl.LightningDataModule.__init__(self)


class PreparesNone(Rows):
    def prepare(self, cache: Path, task: Task) -> DataInfo:
        super().prepare(cache, task)
        return None  # type: ignore[return-value]


class NoTest(Rows):
    def prepare(self, cache: Path, task: Task) -> DataInfo:
        info = super().prepare(cache, task)
        return replace(info, splits={"val": info.splits["val"]})


class IntWeight(Rows):
    def batch(self, split: str, chosen: Tensor) -> Batch:
        batch = super().batch(split, chosen)
        return batch._replace(weight=batch.weight.long())


class IntTarget(Rows):
    def batch(self, split: str, chosen: Tensor) -> Batch:
        batch = super().batch(split, chosen)
        return batch._replace(target=batch.target.int())


class Misaligned(Rows):
    def batch(self, split: str, chosen: Tensor) -> Batch:
        batch = super().batch(split, chosen)
        return batch._replace(target=batch.target[:, 1:])


class NoBatch(Rows):
    def batch(self, split: str, chosen: Tensor) -> Batch:
        batch = super().batch(split, chosen)
        return {"tokens": batch.inputs["tokens"], "target": batch.target}  # type: ignore[return-value]


class GlobalOrder(Rows):
    def order(self, step: int) -> NDArray[np.int64]:
        return np.random.permutation(len(self.rows["train"]))[: self.batch_size]  # noqa: NPY002


class ReadsOn(Rows):
    """As an iterator over an epoch does."""

    place = 0

    def order(self, step: int) -> NDArray[np.int64]:
        self.place += self.batch_size
        return (self.place + np.arange(self.batch_size)) % len(self.rows["train"])


class OrderOfTheProcess(Rows):
    """The same in one instance, whatever is asked before; another in the next process."""

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        self.drawn = int.from_bytes(os.urandom(4))
        return super().prepare(cache, task)

    def order(self, step: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.drawn, step]).integers(len(self.rows["train"]), size=self.batch_size)


class OneOrder(Rows):
    def order(self, step: int) -> NDArray[np.int64]:
        return np.random.default_rng(step).integers(len(self.rows["train"]), size=self.batch_size)


class IgnoresShare(Rows):
    def train_batch(self, step: int, share: Share) -> Batch:
        return super().train_batch(step, Share())


class FirstShare(Rows):
    """Every rank trains on the same part."""

    def train_batch(self, step: int, share: Share) -> Batch:
        return super().train_batch(step, share._replace(rank=0))


class DropsLast(Rows):
    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterator[Batch]:
        batches = super().eval_batches(split, share, subset, most)
        yield from (batch for batch in batches if len(batch.weight) == self.val_batch_size)


class EachRankAll(Rows):
    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterator[Batch]:
        return super().eval_batches(split, Share(), subset, most)


class ReadOnce(Rows):
    """As a generator that is made once is."""

    def eval_batches(
        self, split: str, share: Share, subset: Subset = "all", most: int | None = None
    ) -> Iterator[Batch]:
        self.left = getattr(self, "left", {})
        self.left.setdefault(split, super().eval_batches(split, share, subset, most))
        return self.left[split]  # type: ignore[no-any-return]


class HashesTheClock(Rows):
    def content_hashes(self, task: Task) -> dict[str, str]:
        return {"data.path": str(time.monotonic_ns())}


class NothingToFit(Rows):
    def batch(self, split: str, chosen: Tensor) -> Batch:
        batch = super().batch(split, chosen)
        return batch._replace(extras={**batch.extras, "fit": torch.zeros_like(batch.target)})


DATA: list[Any] = [
    Wrong(NoTrainBatch, REFUSED, r"NoTrainBatch has no eval_batches, no prepare, no train_batch", "refuses"),
    Wrong(NoBatchSize, REFUSED, r"NoBatchSize has no batch_size: its __init__ calls super", "refuses"),
    Wrong(PreparesNone, REFUSED, r"PreparesNone\.prepare returns None; it must return a .*DataInfo", "refuses"),
    Wrong(NoTest, REFUSED, r"NoTest\.prepare says nothing of its split test", "refuses"),
    Wrong(IntWeight, "batches", r"train_batch\(0, …\) gives torch\.int64 weights", "refuses"),
    Wrong(IntTarget, "batches", r"gives torch\.int32 targets; classes are int64", "refuses"),
    Wrong(Misaligned, "batches", r"gives target of shape \[\d+, 3\] beside weights of shape \[\d+, 4\]", "refuses"),
    Wrong(NoBatch, "batches", r"gives a dict, not a losslab\.contracts\.Batch", "refuses"),
    Wrong(GlobalOrder, "seed and step", r"another batch the second time: it draws from a global generator", "refuses"),
    Wrong(ReadsOn, "seed and step", r"another batch the second time: .* or reads on from where it was", "refuses"),
    Wrong(OrderOfTheProcess, "seed and step", r"of a fresh instance, .* gives another batch: a resumed run"),
    Wrong(OneOrder, "seeds", r"two seeds give the same batches: the order does not read self\.seed"),
    Wrong(IgnoresShare, "shares", r"with 1 ranks and 2 micro-batches, .* have 12, 12 samples, not 6 each"),
    Wrong(FirstShare, "shares", r"do not make up the batch: \d of 12 samples are missing"),
    Wrong(DropsLast, "scored once", r"gives 40 positions, and prepare said 52 .* smaller batch left out"),
    Wrong(EachRankAll, "scored once", r"gives other samples with 2 ranks: 0 of 13 .* and 13 are there"),
    Wrong(ReadOnce, "scored once", r"gives \d+ positions, and prepare said|with a second pass: 13 of 13"),
    Wrong(HashesTheClock, "content hashes", r"gives other hashes the second time"),
    Wrong(NothingToFit, "parts of splits", r"gives no position to fit the task's calibrator on"),
]


class NoMeter(Task):
    accepts = frozenset({TargetKind.CLASSES})
    metrics = METRICS
    primary = PRIMARY

    def target_size(self, info: DataInfo) -> int:
        return 2


class OtherPrimary(Tagging):
    primary = "accuracy"


class AcceptsNothing(Tagging):
    accepts = frozenset()


class PlainNames(Tagging):
    metrics = ("nll", "nll_scaled")  # type: ignore[assignment]


class NotFlat(Tagging):
    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        extras = {name: value.flatten() for name, value in batch.extras.items()}
        return Features(backbone(batch.inputs), batch.target.flatten(), batch.weight.flatten(), extras)


class OtherRows(Tagging):
    """Selects the hidden states that count, and forgets the extras."""

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        found = super().features(backbone, batch, kind, needs)
        kept = found[found.weight > 0]
        return replace(kept, extras=found.extras)


class FloatClasses(Tagging):
    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        found = super().features(backbone, batch, kind, needs)
        return replace(found, target=found.target.float())


class FromOne(Tagging):
    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        found = super().features(backbone, batch, kind, needs)
        return replace(found, target=found.target + 1)


class Promises(Tagging):
    provides = frozenset({"previous"})


class DetachedFeatures(Tagging):
    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        found = super().features(backbone, batch, kind, needs)
        return replace(found, hidden=found.hidden.detach())


class OtherCalibration(Temperature):
    names = ("temperature",)


class NamesItOtherwise(Tagging):
    def calibrator(self, info: DataInfo) -> Temperature:
        return OtherCalibration()


class Changed(Tagging):
    """Its meter is one of ours, changed by `change`."""

    def change(self, meter: ClassMeter) -> None:
        """Break the meter."""

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ClassMeter:
        meter = super().meter(info, split, calibration, thorough=thorough)
        self.change(meter)
        return meter


class Undeclared(Changed):
    def change(self, meter: ClassMeter) -> None:
        values = meter.values
        meter.values = lambda: values() | {"f1": 0.5}  # type: ignore[method-assign]


class PrimaryMissing(Changed):
    def change(self, meter: ClassMeter) -> None:
        meter.values = lambda: {"nll": 1.0}  # type: ignore[method-assign]


class MeanOfMeans(Changed):
    def change(self, meter: ClassMeter) -> None:
        means: list[float] = []

        def update(features: Features, loss: Any, projection: Projection) -> LossSum:
            kept = features.kept()
            logits = loss.scores(kept.hidden, projection)
            means.append(nn.functional.cross_entropy(logits, kept.target).item() if len(kept) else 0.0)
            return no_objective(features.hidden)

        meter.update = update  # type: ignore[method-assign]
        meter.values = lambda: {PRIMARY: sum(means) / len(means)}  # type: ignore[method-assign]


class CountsIgnored(Changed):
    def change(self, meter: ClassMeter) -> None:
        update = meter.update
        meter.update = lambda features, loss, projection: update(  # type: ignore[method-assign]
            replace(features, weight=torch.ones_like(features.weight)), loss, projection
        )


class KeepsTheLast(Changed):
    """Says that the largest of the ranks' counts is the whole's."""

    def change(self, meter: ClassMeter) -> None:
        states = meter.states
        meter.states = lambda: {name: (state, "max") for name, (state, _) in states().items()}  # type: ignore[method-assign]


class CountsOtherTargets(Tagging):
    def flat_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.target.flatten(), torch.ones_like(batch.weight).flatten()


TASKS: list[Any] = [
    Wrong(NoMeter, REFUSED, r"task: NoMeter has no features, no meter, which every class", "refuses"),
    Wrong(OtherPrimary, REFUSED, r"its primary metric 'accuracy' is not among its metrics", "refuses"),
    Wrong(AcceptsNothing, REFUSED, r"AcceptsNothing\.accepts must be a set of one or more of TargetKind", "refuses"),
    Wrong(PlainNames, REFUSED, r"PlainNames\.metrics holds 'nll', which is no losslab\.contracts\.Metric", "refuses"),
    Wrong(
        NotFlat,
        "features",
        r"gives hidden states of shape \[\d+, \d+, 64\] and \d+ weights",
        "refuses",
    ),
    Wrong(OtherRows, "features", r"rows of the extra '\w+' for \d+ positions", "refuses"),
    Wrong(FloatClasses, "features", r"gives targets float32 .* they are int64 \[N\], classes from 0 to 1", "refuses"),
    Wrong(FromOne, "features", r"from 1 to 2 .* classes from 0 to 1", "refuses"),
    Wrong(Promises, "features", r"gives no extra 'previous', which `provides` promises"),
    Wrong(DetachedFeatures, "gradient", r"hidden states without a gradient: something on the way is detached"),
    Wrong(NamesItOtherwise, "metrics", r"OtherCalibration returns scale, and its `names` are temperature", "refuses"),
    Wrong(Undeclared, "metrics", r"ClassMeter returns f1, which the `metrics` of Undeclared do not declare", "refuses"),
    Wrong(PrimaryMissing, "metrics", r"ClassMeter returns no nll_scaled, the `primary` metric of its task", "refuses"),
    Wrong(MeanOfMeans, "sums", r"nll_scaled is not the same in two batches as in one .* keeps sums and counts"),
    Wrong(
        CountsIgnored,
        "ignored positions",
        r"changes from \S+ to \S+ with the targets of positions whose weight is 0",
    ),
    Wrong(KeepsTheLast, "sums", r"is not the same on two ranks as on one, once `states` are combined"),
    Wrong(CountsOtherTargets, "flat targets", r"flat_targets gives \d+ targets of weight \d+, and features"),
]

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
    Wrong(Forgets, "cache", r"given one after the other have other hidden states than all at once"),
    Wrong(CannotGoOn, "cache", r"with a cache forward raises KeyError"),
    Wrong(TiedToAnother, "projection", r"TiedToAnother has \d+ outputs of width 16, and task and loss want", "refuses"),
    Wrong(PlainState, "saved state", r"a tensor in a plain attribute or list is drawn or changed", "refuses"),
    Wrong(LooseBuffer, "saved state", r"the buffer shift \(persistent=False\) is drawn or changed", "refuses"),
    Wrong(AlwaysDrops, "modes", r"in evaluation mode two passes differ", "refuses"),
    Wrong(Detached, "gradients", r"no gradient reaches embedding\.weight: it is never used", "notes"),
    Wrong(WritesIntoInputs, "hidden states", r"forward changes its input 'tokens' in place", "refuses"),
    Wrong(TakesIds, "hidden states", r"a dict of named inputs: wrap .*HiddenStatesAdapter", "refuses"),
    Wrong(Raises, "hidden states", r"forward raises RuntimeError: Expected size", "refuses"),
]
MASKED = [Wrong(IgnoresTheMask, "mask", r"positions that the mask excludes changes the hidden states", "refuses")]
"""Models of Sentences and Tagging; those of MODELS read tokens."""
