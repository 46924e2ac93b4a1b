"""Lightning's hooks around a validation, which is ours: in Lightning's order, on callbacks and module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.model_helpers import _ModuleMode


class ValidationHooks:
    """There is no `on_validation_batch_*`: the evaluator reads part of the batches twice, others not at all."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.trainer = trainer
        self.module = module

    @contextmanager
    def around(self) -> Iterator[None]:
        """Call `on_validation_start` and `…_epoch_start`, and leave trainer and module as they were."""
        trainer, modes = self.trainer, _ModuleMode()
        connector = trainer._logger_connector
        first = connector._first_loop_iter
        modes.capture(self.module)
        trainer.validating = True
        try:
            self.module.eval()
            trainer.fit_loop.epoch_loop.val_loop._results.reset()
            connector.epoch_end_reached()
            self._call("on_validation_start")
            self._call("on_validation_epoch_start")
            yield
        finally:
            modes.restore(self.module)
            trainer.training = True
            connector._first_loop_iter = first

    def ended(self, values: Mapping[str, float]) -> None:
        """Show the values in `trainer.callback_metrics`, and call `on_validation_epoch_end` and `…_end`."""
        show(self.trainer, values)
        connector = self.trainer._logger_connector
        self._call("on_validation_epoch_end")
        connector.log_eval_end_metrics(connector.update_eval_epoch_metrics())
        self._call("on_validation_end")

    def _call(self, hook: str) -> None:
        call._call_callback_hooks(self.trainer, hook)
        call._call_lightning_module_hook(self.trainer, hook)


def show(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
    """Put values where callbacks look for what they monitor. float64: what is better by less than float32 can hold is
    better all the same."""
    shown: dict[str, Any] = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    trainer.callback_metrics.update(shown)
