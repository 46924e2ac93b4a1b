"""The callback of `callbacks=ema`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl

from losslab.errors import UserError
from losslab.metric import AVERAGED, Metric
from losslab.training.averages import Averages
from losslab.training.module import LossModule

KEY = "ema"
"""The key of a checkpoint under which the averages stand."""
_PATH = "losslab.training.ema.EMA"


class EMA(pl.Callback):
    """An exponential moving average of the weights, beside them: validations and tests score both.

    The averages are float32 whatever the precision is, and shards where weights are. They stand under a key of their
    own in checkpoints, so that the weights stay what `val/…`, the best checkpoint and `losslab.load` mean.

    Args:
        decay: weight of the average at each update, from 0 (the last weights) to below 1. The average is corrected for
            its beginning: after k updates, w_i weighs decay^(k−i) / Σ_j decay^(k−j).
        every: optimizer steps between updates.

    Raises:
        UserError: for other values.
    """

    def __init__(self, *, decay: float = 0.999, every: int = 1) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"callbacks: EMA's decay must be at least 0 and below 1, not {decay}")
        if every < 1:
            raise UserError(f"callbacks: EMA's every counts optimizer steps, at least 1, not {every}")
        self.every = every
        self.averages = Averages(decay)
        self._stored: dict[str, Any] | None = None
        self._step = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LossModule)
        self.averages.follow(pl_module.network)
        self._take_stored()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LossModule)
        self._step = trainer.global_step
        if self.averages.updates == 0:  # a sharded network gets the weights of a checkpoint after on_fit_start
            self.averages.follow(pl_module.network)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # inside an accumulation window
        self._step = trainer.global_step
        if self._step % self.every == 0:
            self.averages.update()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[KEY] = self.averages.state()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._stored = checkpoint.get(KEY)
        if self.averages.follows:
            self._take_stored()

    def _take_stored(self) -> None:
        if self._stored is not None:
            self.averages.load(self._stored)
            self._stored = None


def find_averages(callbacks: Iterable[pl.Callback]) -> Averages | None:
    """The averages that a run's evaluations score beside the weights."""
    return next((callback.averages for callback in callbacks if isinstance(callback, EMA)), None)


def with_averaged(metrics: Sequence[Metric], primary: str, callbacks: Mapping[str, Any]) -> tuple[Metric, ...]:
    """A task's metrics, followed by those of the averaged weights where a configuration has any.

    Args:
        callbacks: nodes by name.
    """
    if not any(node["_target_"] == _PATH for node in callbacks.values()):
        return tuple(metrics)
    averaged = [
        metric._replace(
            name=f"{AVERAGED}{metric.name}",
            label=f"{metric.label} of the averaged weights",
            shown=frozenset({"terminal", "events"}) if metric.name == primary else metric.shown & {"events"},
        )
        for metric in metrics
    ]
    return (*metrics, *averaged)
