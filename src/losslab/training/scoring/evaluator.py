"""Evaluate a network on a split, or on a fixed part of it. Not Lightning's loop: nothing of it enters a checkpoint, and
the temperature is fitted before the first batch is scored."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from losslab.contracts import Batch, Features, LossSum, Projection
from losslab.data.module import TextDataModule
from losslab.files import write_atomic
from losslab.losses.base import Loss
from losslab.metrics.class_metrics import ClassMetrics, scoring_rows
from losslab.metrics.extended import Details
from losslab.metrics.frequency import frequency_groups
from losslab.metrics.scale import fit_scale
from losslab.metrics.text_units import per_text
from losslab.metrics.unigram import unigram_nll
from losslab.training.network import Network, Observer
from losslab.training.random import global_stream

FIT_POSITIONS = 4096
LAST_FIT_POSITIONS = 16384
_FEWEST_FIT, _FIT_SHARE = 1024, 8
"""A validation that scores a part of val fits on an eighth as many positions: each of them is read some five times."""


class Evaluator:
    """Metrics of a network on the splits of a data module.

    Args:
        interim_tokens: how many tokens of val `validate` scores unless thorough; 0: all.
        context: makes autocast or nothing, as in training; metrics themselves are float32.
    """

    def __init__(
        self,
        network: Network,
        data: TextDataModule,
        *,
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
        interim_tokens: int = 0,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.network = network
        self.data = data
        self.device = device
        self.rank = rank
        self.ranks = ranks
        self.interim_tokens = interim_tokens
        self.context = context

    @global_stream(0, "evaluation")
    def validate(self, *, thorough: bool = False) -> dict[str, float]:
        """Fit the temperature on one half of val, then score val; keys `val/…`.

        Args:
            thorough: for the last and the best weights: fit on more positions, score all of val (or
                data.max_eval_tokens of it), and give the dearer metrics too.
        """
        scale = self._fit(LAST_FIT_POSITIONS if thorough else self._fit_positions)
        most = self._most(thorough=thorough)
        return self._score("val", scale, self._details("val") if thorough else None, most)

    @property
    def scores_parts(self) -> bool:
        """Whether validations that are not thorough score a part of val."""
        return self.interim_tokens > 0

    @property
    def _fit_positions(self) -> int:
        if not self.scores_parts:
            return FIT_POSITIONS
        return min(FIT_POSITIONS, max(_FEWEST_FIT, self.interim_tokens // _FIT_SHARE))

    def _most(self, *, thorough: bool) -> int | None:
        """How many tokens to score."""
        limits = [self.data.max_eval_tokens, None if thorough else self.interim_tokens or None]
        return min((limit for limit in limits if limit is not None), default=None)

    @global_stream(0, "evaluation")
    def test(self, scale: float, *, keep: Path | None = None) -> dict[str, float]:
        """Score test with a temperature fitted on val; keys `test/…`.

        Args:
            keep: where rank 0 writes each document's scores, for the comparison.
        """
        details = self._details("test", units=True)
        values = self._score("test", scale, details, self.data.max_eval_tokens)
        if keep is not None and self.rank == 0:
            content = io.BytesIO()
            np.savez_compressed(content, allow_pickle=False, unit=np.array(self.data.unit("test")), **details.arrays())
            write_atomic(keep, content.getbuffer())
        return values

    @global_stream(0, "evaluation")
    def text(self, scale: float) -> dict[str, float]:
        """Score another text (`TextDataModule.open_text`) with a temperature fitted before; keys `text/…`."""
        return self._score("text", scale, Details(device=self.device), None)

    def _details(self, split: str, *, units: bool = False) -> Details:
        groups = torch.from_numpy(frequency_groups(self.data.train_counts)).to(self.device)
        return Details(groups=groups, num_units=self.data.num_units(split) if units else 0, device=self.device)

    def _fit(self, most: int) -> float:
        kept: list[Features] = []
        scale = 1.0

        def collect(features: Features | None, loss: Loss, projection: Projection) -> LossSum:
            assert features is not None
            fitting = Features(features.hidden, features.target, features.weight * features.extras["fit"])
            kept.extend(fitting.kept().chunks(scoring_rows(projection.weight.shape[0])))
            return LossSum(total=features.weight.sum(), weight=features.weight.sum())

        def fit(_: Features | None, loss: Loss, projection: Projection) -> LossSum:
            nonlocal scale
            with torch.autocast(device_type=self.device.type, enabled=False):
                scale = fit_scale(kept, loss, projection)
            loss.calibrate(scale)
            return LossSum(total=torch.zeros(()), weight=torch.zeros(()))

        # Every rank fits on the same windows; the projection, which may be sharded, is whole only inside a forward.
        self.run(self.data.fit_batches(most), collect)
        self.run([None], fit)
        return scale

    def _score(self, split: str, scale: float, details: Details | None, most: int | None) -> dict[str, float]:
        metrics = ClassMetrics(scale, held_out=split == "val", device=self.device, details=details)
        self.run(self.data.eval_batches(split, rank=self.rank, ranks=self.ranks, most=most), metrics.update)
        if self.ranks > 1:
            for state in metrics.states():
                distributed.all_reduce(state)
        text = self.data.measure(split)
        values = per_text(metrics.values(), text.positions, text.words, lossless=text.round_trip.lossless)
        if split != "text":  # whose tokens were not counted in train
            values["unigram_nll"] = unigram_nll(self.data.train_counts, self.data.targets(split, most))
        return {f"{split}/{name}": value for name, value in values.items()}

    @torch.no_grad()
    def run(self, batches: Iterable[Batch | None], observer: Observer) -> None:
        """Show the network's features for each batch to an observer, in evaluation mode and without gradients."""
        training = self.network.training
        self.network.eval()
        try:
            for batch in batches:
                with self.context():
                    self.network(None if batch is None else _to_device(batch, self.device), observer)
        finally:
            self.network.train(training)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    extras = {name: value.to(device) for name, value in batch.extras.items()}
    return Batch(batch.inputs.to(device), batch.target.to(device), batch.weight.to(device), extras)
