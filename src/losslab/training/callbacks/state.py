"""The state of a run, as a checkpoint keeps it, and the steps at which something is due."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losslab.errors import UserError
from losslab.training.schedules import make_factor


@dataclass
class RunState:
    """The state of the run that a checkpoint keeps, beside Lightning's part."""

    step: int = 0
    tokens: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    """The validation with the best primary metric so far, and its `step`."""
    latest: dict[str, float] = field(default_factory=dict)
    """The last validation."""
    seconds: float = 0.0
    """Training time over all sessions, validations included."""
    validation_seconds: float = 0.0
    """Seconds of the validations."""
    due: dict[str, float] | None = None
    """Values to log with this step's validation, where a continued run still has to make it."""
    stopped: dict[str, Any] | None = None
    """Who ended training before its budget did: `step`, `by` (the callback's name) and `reason`."""
    logged: dict[str, float] = field(default_factory=dict)
    """Values that callbacks logged at this step."""
    shown: dict[str, float] = field(default_factory=dict)
    """Values that callbacks can monitor (`trainer.callback_metrics`)."""

    @classmethod
    def of(cls, checkpoint: dict[str, Any], path: Path) -> RunState:
        try:
            return cls(**checkpoint["losslab"])
        except TypeError:
            raise UserError(f"{path} was written by another version of losslab: it cannot be continued") from None


@dataclass(frozen=True)
class Intervals:
    """Intervals of validations, checkpoints and logs, in optimizer steps."""

    total: int
    log: int
    validate: int
    checkpoint: int
    """0: no checkpoints."""
    stable: int = 0
    """The last step before the schedule's decay, after which a checkpoint is kept; 0 where there is none."""

    @classmethod
    def of(cls, config: dict[str, Any]) -> Intervals:
        settings = config["trainer"]
        factor = make_factor(config["scheduler"], max_steps=settings["max_steps"])
        return cls(
            total=settings["max_steps"],
            log=settings["log_every_n_steps"],
            validate=settings["val_check_interval"],
            checkpoint=0 if settings["fast_dev_run"] else config["checkpoints"]["every_n_steps"],
            stable=getattr(factor, "stable_steps", 0),
        )

    def logged(self, step: int) -> bool:
        return step % self.log == 0 or step in (1, self.total)

    def validated(self, step: int) -> bool:
        return step % self.validate == 0 or step == self.total

    def saved(self, step: int) -> bool:
        if self.checkpoint == 0:
            return False
        return step % self.checkpoint == 0 or self.validated(step) or step == self.stable
