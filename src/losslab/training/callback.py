"""The one callback: at each optimizer-step boundary it logs, validates, checkpoints and notes the run's record, in this
order, so that a checkpoint never lacks what the logs have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from losslab import console
from losslab.errors import Diverged, Interrupted, UserError
from losslab.metric import Metric, better
from losslab.records import Record
from losslab.reports import Validated
from losslab.run_folder import RunFolder
from losslab.training.module import LossModule
from losslab.training.output.checkpoints import amend, keep_newest, link
from losslab.training.output.logs import MetricsLog, learning_rate_column
from losslab.training.output.messages import note
from losslab.training.output.progress import RunProgress
from losslab.training.schedules import make_factor
from losslab.training.scoring.evaluator import Evaluator


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


class RunCallback(pl.Callback):
    """Args:
    primary: the metric whose best value on val makes a checkpoint the best one.
    contents: what a checkpoint holds beside weights and states: plain values under names of their own.
    keep: how many of the newest checkpoints stay.
    metrics_log, record: None on ranks that do not write.
    before_fit: installs our signal handlers, after Lightning's.
    began: when this process started, by time.monotonic().
    """

    def __init__(
        self,
        *,
        run: RunFolder,
        state: RunState,
        intervals: Intervals,
        evaluator: Evaluator,
        primary: Metric,
        progress: RunProgress,
        contents: dict[str, Any],
        keep: int,
        metrics_log: MetricsLog | None,
        record: Record | None,
        before_fit: Callable[[], None],
        began: float,
    ) -> None:
        self.run = run
        self.state = state
        self.intervals = intervals
        self.evaluator = evaluator
        self.primary = primary
        self.progress = progress
        self.contents = contents
        self.keep = keep
        self.metrics_log = metrics_log
        self.record = record
        self.before_fit = before_fit
        self.began = began
        self._first = state.step + 1
        self._seconds_before = state.seconds
        self._started = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before_fit()
        self.progress.begin()
        assert isinstance(pl_module, LossModule)
        if self.state.due is not None:
            self._catch_up(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LossModule)
        step, report = trainer.global_step, pl_module.report
        if report is None or step == self.state.step:
            return  # inside an accumulation window
        if step == self._first and self.record is not None:
            self.record.timing["first_step"] = time.monotonic() - self.began
        self.state.step = step
        self.state.tokens += report.weight
        row: dict[str, float] = {}
        if self.intervals.logged(step):
            row |= {
                "train/objective": report.objective,
                "train/tokens": self.state.tokens,
            }
            row |= {learning_rate_column(name): rate for name, rate in report.learning_rates.items()}
            row |= {f"train/objective/{name}": value for name, value in report.terms.items()}
            row |= {f"grad_norm/{name}": norm for name, norm in report.gradient_norms.items()}
        if self.intervals.saved(step) or report.stop:
            pl_module.check_weights(step)
        improved = self.intervals.validated(step) and self._validate(row)
        if row and self.metrics_log is not None:
            self.metrics_log.write(step, row, self.state.best)
        self.progress.step(step, report.objective)
        if self.intervals.saved(step) or (report.stop and self.intervals.checkpoint):
            self._save(trainer, improved)
        if self.intervals.validated(step) and console.listener is not None:
            console.listener(Validated(step, row[f"val/{self.primary.name}"]))
        if report.stop:
            raise Interrupted(f"stopped by a signal after step {step}")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["losslab"] = dict(vars(self.state))
        for schedule in checkpoint["lr_schedulers"]:  # a pure function of the step, whatever it keeps to itself
            if "lr_lambdas" in schedule:
                schedule["lr_lambdas"] = [None] * len(schedule["lr_lambdas"])
        checkpoint.update(self.contents)

    def _catch_up(self, module: LossModule) -> None:
        """Make the validation that is due at the step where this run continues another, before training goes on."""
        row, self.state.due = dict(self.state.due or {}), None
        kept = self.run.best.is_file()  # seen before any rank can have written it
        improved = self._validate(row)
        if not improved and not kept:
            lost, self.state.best = self.state.best, {**self.state.latest, "step": self.state.step}
            improved = True
            if self.record is not None:
                note(
                    f"the best checkpoint so far, of step {lost['step']:.0f}, was not kept by the run that this one "
                    "continues; from here on the best one counts"
                )
                self.record.provenance["continued"]["best_from"] = self.state.step
        if self.metrics_log is not None:
            self.metrics_log.write(self.state.step, row, self.state.best)
            self.metrics_log.flush()
        if self.record is not None:
            buffers = {f"network.loss.{name}": value for name, value in module.network.loss.named_buffers()}
            amend(self.run.last, dict(vars(self.state)), buffers)
            if improved:
                link(self.run.last, self.run.best)

    def _validate(self, row: dict[str, float]) -> bool:
        """Returns whether this is the best validation so far: like is compared with like, on the tokens and with the
        fit of interim validations, while the last weights are then scored thoroughly."""
        started = time.monotonic()
        last = self.state.step == self.intervals.total
        with self.progress.paused():
            values = thorough = self.evaluator.validate(thorough=last and not self.evaluator.scores_parts)
            if last and self.evaluator.scores_parts:
                thorough = self.evaluator.validate(thorough=True)
        self.state.validation_seconds += time.monotonic() - started
        name = f"val/{self.primary.name}"
        value = values[name]
        if not math.isfinite(value):
            raise Diverged(f"{name} is {value} after step {self.state.step}")
        row |= thorough | values
        self.state.latest = thorough
        self.progress.validated(value)
        if self.state.best and not better(self.primary, value, self.state.best[name]):
            return False
        self.state.best = {**thorough, "step": self.state.step}
        return True

    def _save(self, trainer: pl.Trainer, improved: bool) -> None:
        with self.progress.paused():
            self._write(trainer, improved)

    def _write(self, trainer: pl.Trainer, improved: bool) -> None:
        self.state.seconds = self._seconds_before + time.monotonic() - self._started
        if self.metrics_log is not None:
            self.metrics_log.flush()
        trainer.save_checkpoint(self.run.last)
        if self.record is None:
            return
        keep_newest(self.run, self.state.step, self.keep)
        if improved:
            link(self.run.last, self.run.best)
        if self.state.step == self.intervals.stable:
            link(self.run.last, self.run.stable)
            if self.state.best.get("step") not in (None, self.state.step):
                link(self.run.best, self.run.stable_best)
        self.record.step = self.state.step
        self.record.metrics = {"final": self.state.latest, "best": self.state.best}
        self.record.timing["seconds"] = self.state.seconds
        self.record.timing["validation_seconds"] = self.state.validation_seconds
        self.record.throughput["tokens_per_second"] = self.progress.speed(self.state.step)
        self.run.write(self.record)
