"""Callbacks as a person writes them, for the runs of test_callbacks.py and test_every_step_with_callbacks.py."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch


class Remembers(pl.Callback):
    """Keeps a state of numbers that it drew and of values that it monitored, and moves a weight by it."""

    def __init__(self, *, monitor: str, strength: float = 1e-3) -> None:
        self.monitor = monitor
        self.strength = strength
        self.drawn = 0.0
        self.seen: list[float] = []
        self.hooks: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "seen": list(self.seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.drawn, self.seen = state_dict["drawn"], list(state_dict["seen"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.drawn += float(torch.rand(())) + float(np.random.random())  # noqa: NPY002
        with torch.no_grad():
            next(pl_module.network.backbone.parameters()).add_(self.strength * self.drawn)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._note("start", trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._note("epoch_start", trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._note("epoch_end", trainer, pl_module)
        self.seen.append(float(trainer.callback_metrics[self.monitor]))
        self.log("mine/seen", self.seen[-1])

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._note("end", trainer, pl_module)

    def _note(self, hook: str, trainer: Any, module: Any) -> None:
        assert trainer.validating
        assert not module.training
        assert not module.network.backbone.training
        self.hooks.append(hook)


class Looks(pl.Callback):
    """Changes nothing."""

    observes_only = True

    def __init__(self, *, often: int = 1) -> None:
        self.often = often
