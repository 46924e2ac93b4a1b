"""The first of all callbacks: what the others find in a checkpoint that they write is that of the step just made."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from losslab.training.callbacks.run_callback import RunCallback
from losslab.training.callbacks.validation_hooks import show
from losslab.training.module import LossModule
from losslab.training.random import seed_callbacks

_UNSAVED = ("current_score", "_defer_save_until_validation", "_last_checkpoint_saved", "_last_global_step_saved")
"""State of Lightning's ModelCheckpoint that its own `state_dict` leaves out: a run killed between a step at which it
was to save and the validation whose metric it waits for would not save at all."""


class Bookkeeper(pl.Callback):
    """Counts a completed optimizer step before any other callback sees it; `RunCallback`, the last of all, closes it.

    Args:
        keeper: whose state and row it fills.
        seed: the run's, for callbacks that draw random numbers.
    """

    def __init__(self, keeper: RunCallback, *, seed: int) -> None:
        self.keeper = keeper
        self.callbacks = list(keeper.callbacks.values())
        self._checkpoints = [callback for callback in self.callbacks if isinstance(callback, ModelCheckpoint)]
        self.seed = seed

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        show(trainer, self.keeper.state.shown)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state = self.keeper.state
        state.shown = {name: float(value) for name, value in trainer.callback_metrics.items()} if self.callbacks else {}
        for callback in self._checkpoints:
            checkpoint["callbacks"][callback.state_key] |= {name: getattr(callback, name) for name in _UNSAVED}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for callback in self._checkpoints:
            for name, value in checkpoint["callbacks"].get(callback.state_key, {}).items():
                if name in _UNSAVED:
                    setattr(callback, name, value)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed_callbacks(self.seed, micro=batch_idx, hook="start")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LossModule)
        seed_callbacks(self.seed, micro=batch_idx, hook="end")
        if trainer.global_step != self.keeper.state.step:
            self.keeper.open(trainer, pl_module, trainer.global_step)
