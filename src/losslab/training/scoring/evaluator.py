"""Evaluate a network on a split, or on a fixed part of it. Not Lightning's loop: nothing of it enters a checkpoint, and
a calibration is fitted before the first batch is scored."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed

from losslab.choices import chosen
from losslab.contracts import (
    Batch,
    DataModule,
    Features,
    Generation,
    LossSum,
    Meter,
    Projection,
    Share,
    Subset,
    no_objective,
    to_device,
)
from losslab.data.tokenizer import tokenizer_of
from losslab.errors import UserError
from losslab.files import write_atomic
from losslab.losses.base import Loss
from losslab.metric import AVERAGED
from losslab.training.averages import Averages
from losslab.training.limits import Limits
from losslab.training.network import Network, Observer
from losslab.training.random import global_stream
from losslab.training.scoring.judging import TextJudge, Work, in_silence

FIT_POSITIONS = 4096
LAST_FIT_POSITIONS = 16384
_FEWEST_FIT, _FIT_SHARE = 1024, 8
"""A validation that scores a part of val fits on an eighth as many positions: each of them is read some five times."""

Calibration = Mapping[str, float]
"""Numbers that the task's calibrator fitted on val, by name; empty for a task that fits nothing."""


class Evaluator:
    """Metrics of a network on the splits of a data module, as its task measures them.

    Args:
        data: prepared.
        interim_positions: how many positions of val `validate` scores unless thorough; 0: all.
        limits: those of a debug run.
        context: makes autocast or nothing, as in training; metrics themselves are float32.
        convert: casts the inputs of a batch, as in training.
        averages: of the network's weights, whose metrics are given beside theirs.
        work: shows how far the writing of texts has come, where a task's meter judges some.
    """

    def __init__(
        self,
        network: Network,
        data: DataModule,
        *,
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
        interim_positions: int = 0,
        limits: Limits | None = None,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
        convert: Callable[[Batch], Batch] = lambda batch: batch,
        averages: Averages | None = None,
        work: Work = in_silence,
    ) -> None:
        self.network = network
        self.task = network.task
        self.data = data
        self.device = device
        self.share = Share(rank, ranks)
        self.limits = limits or Limits()
        self.info = self.limits.describe(data.info, data)
        self.interim_positions = 0 if self.limits.covers(interim_positions) else interim_positions
        self.context = context
        self.convert = convert
        self.averages = averages
        self.work = work

    def validate(self, *, thorough: bool = False) -> dict[str, float]:
        """Fit what the task calibrates on one half of val, then score val; keys `val/…`, and `val/ema/…` of averages.

        Args:
            thorough: for the last and the best weights: fit on more positions, score all of val (or
                data.max_eval_tokens of it), and give the metrics that cost more, too.
        """
        values = self._validate(thorough=thorough)
        if self.averages is None:
            return values
        with self.averages.swapped():
            return values | self._of_averages(self._validate(thorough=thorough))

    @global_stream(0, "evaluation")
    def _validate(self, *, thorough: bool) -> dict[str, float]:
        calibration = self._fit(LAST_FIT_POSITIONS if thorough else self._fit_positions)
        return self._score("val", calibration, thorough=thorough, most=self._most("val", thorough=thorough))

    @global_stream(0, "evaluation")
    def calibrate(self) -> dict[str, float]:
        """The calibration that a thorough validation finds, without scoring val."""
        return self._fit(LAST_FIT_POSITIONS)

    @staticmethod
    def _of_averages(values: Mapping[str, float]) -> dict[str, float]:
        """Values as those of the averaged weights."""
        return {key.replace("/", f"/{AVERAGED}", 1): value for key, value in values.items()}

    @property
    def scores_parts(self) -> bool:
        """Whether validations that are not thorough score a part of val."""
        return self.interim_positions > 0

    @property
    def _fit_positions(self) -> int:
        if not self.scores_parts:
            return FIT_POSITIONS
        return min(FIT_POSITIONS, max(_FEWEST_FIT, self.interim_positions // _FIT_SHARE))

    def _most(self, split: str, *, thorough: bool) -> int | None:
        """The number of positions to score."""
        limits = [getattr(self.data, "max_eval_tokens", None), None if thorough else self.interim_positions or None]
        return self.limits.most(split, min((limit for limit in limits if limit is not None), default=None))

    def _batches(self, split: str, share: Share, subset: Subset, most: int | None) -> Iterable[Batch]:
        if self.limits.replaces(split):
            return self.limits.train_batches(self.data, share, subset, most)
        return self.data.eval_batches(split, share, subset, most)

    def test_after(self, validated: Mapping[str, float], *, keep: Path | None = None) -> dict[str, float]:
        """`test` with the calibration that a validation found; keys `test/…`, and `test/ema/…` of averages."""
        values = self.test(self.calibration_of(validated), keep=keep)
        if self.averages is None:
            return values
        with self.averages.swapped():
            return values | self._of_averages(self.test(self.calibration_of(validated, AVERAGED)))

    @global_stream(0, "evaluation")
    def test(self, calibration: Calibration, *, keep: Path | None = None) -> dict[str, float]:
        """Score test with a calibration fitted on val; keys `test/…`.

        Args:
            keep: where rank 0 writes each unit's scores, for the comparison; a task without any writes none.
        """
        most = self._most("test", thorough=True)
        meter = self._measure("test", calibration, thorough=True, most=most)
        if keep is not None and self.share.rank == 0 and (arrays := meter.arrays()):
            content = io.BytesIO()
            unit = np.array(self.data.info.splits["test"].unit)
            np.savez_compressed(content, allow_pickle=False, unit=unit, **arrays)
            write_atomic(keep, content.getbuffer())
        return self._values(meter, "test", most)

    @global_stream(0, "evaluation")
    def text(self, calibration: Calibration) -> dict[str, float]:
        """Score another text (`TextDataModule.open_text`) with a calibration fitted before; keys `text/…`."""
        return self._score("text", calibration, thorough=True, most=None)

    def calibration_of(self, values: Mapping[str, float], part: str = "") -> dict[str, float]:
        """The calibration among the values of a validation; of the averaged weights with `ema/` as part."""
        calibrator = self.task.calibrator(self.data.info)
        return {} if calibrator is None else {name: values[f"val/{part}{name}"] for name in calibrator.names}

    def _fit(self, most: int) -> dict[str, float]:
        calibrator = self.task.calibrator(self.info)
        if calibrator is None:
            return {}
        found: dict[str, float] = {}

        def finish(_: Features | None, loss: Loss, projection: Projection) -> LossSum:
            found.update(calibrator.finish(loss, projection))
            return no_objective(projection.weight)

        # Every rank fits on the same positions; the projection, which may be sharded, is whole only inside a forward.
        self.run(self._batches("val", Share(), "fit", self.limits.most("val", most)), calibrator.update)
        self.run([None], finish)
        return found

    def _score(self, split: str, calibration: Calibration, *, thorough: bool, most: int | None) -> dict[str, float]:
        return self._values(self._measure(split, calibration, thorough=thorough, most=most), split, most)

    def _measure(self, split: str, calibration: Calibration, *, thorough: bool, most: int | None) -> Meter:
        meter = self.task.meter(self.info, split, calibration, thorough=thorough)
        meter.to(self.device)
        self.run(self._even(self._batches(split, self.share, "all", most), split), meter.update)
        if thorough and self.task.generation is not None:
            self._judge(meter, self.task.generation, split, most)
        if self.share.ranks > 1:
            meter.combine({name: _combine(state, how) for name, (state, how) in meter.states().items()})
        return meter

    def _judge(self, meter: Meter, generation: Generation, split: str, most: int | None) -> None:
        """Let the network write the texts of a split, each rank those of its samples, for the meter."""
        tokenizer = tokenizer_of(self.info.artifacts)
        if tokenizer is None:
            raise UserError(f"{chosen('task', self.task)} writes texts, and this data has no tokenizer")
        judge = TextJudge(
            self.network, generation, tokenizer,
            self._references(split),
            context=getattr(self.data, "context", None), ranks=self.share.ranks, device=self.device,
        )  # fmt: skip
        total = sum(int((batch.weight > 0).any(dim=1).sum()) for batch in self._batches(split, self.share, "all", most))
        batches = self._even(self._batches(split, self.share, "all", most), split)
        with self.work(f"writing the texts of {split}", total) as advance:
            judge.judge((to_device(batch, self.device) for batch in batches), meter, self.run, advance)

    def _references(self, split: str) -> Sequence[Sequence[str]] | None:
        """Those of each sample; None where only its tokens are known."""
        if not self.task.predicted or self.limits.replaces(split):
            return None
        return self.data.texts(split, self.task.predicted[0])

    def _values(self, meter: Meter, split: str, most: int | None) -> dict[str, float]:
        values = meter.values() | ({} if self.limits.replaces(split) else self.data.references(split, most))
        names = {metric.name for metric in self.task.metrics}
        if strangers := sorted(values.keys() - names):
            raise UserError(
                f"task: the meter of {type(self.task).__name__} returns {', '.join(strangers)}, which its `metrics` do "
                "not declare: add a Metric for each"
            )
        if self.task.primary not in values:
            raise UserError(
                f"task: the meter of {type(self.task).__name__} returns no {self.task.primary}, its `primary` metric"
            )
        return {f"{split}/{name}": value for name, value in values.items()}

    def _even(self, batches: Iterable[Batch], split: str) -> Iterator[Batch]:
        """Give as many batches on every rank, for sharded networks need each rank at every forward: the rest are
        batches of weight 0."""
        if self.share.ranks == 1:
            yield from batches
            return
        idle: Batch | None = None
        found = iter(batches)
        while True:
            batch = next(found, None)
            more = torch.tensor(0 if batch is None else 1, device=self.device)
            distributed.all_reduce(more)
            if not more:
                return
            if batch is None:
                idle = idle or next(iter(self.data.eval_batches(split, Share())))
                batch = idle._replace(weight=torch.zeros_like(idle.weight))
            idle = batch
            yield batch

    @torch.no_grad()
    def run(self, batches: Iterable[Batch | None], observer: Observer) -> None:
        """Show the network's features for each batch to an observer, in evaluation mode and without gradients."""
        training = self.network.training
        self.network.eval()
        try:
            for batch in batches:
                with self.context():
                    self.network(None if batch is None else self.convert(to_device(batch, self.device)), observer)
        finally:
            self.network.train(training)


_REDUCE = {"sum": distributed.ReduceOp.SUM, "max": distributed.ReduceOp.MAX, "min": distributed.ReduceOp.MIN}


def _combine(state: Tensor, how: str) -> Tensor:
    """A state of all ranks together."""
    if how == "cat":
        parts: list[Tensor | None] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, state.cpu())
        return torch.cat([part for part in parts if part is not None]).to(state.device)
    distributed.all_reduce(state, op=_REDUCE[how])
    return state
