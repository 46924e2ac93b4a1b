"""The last of all callbacks: at each optimizer-step boundary it logs, validates, checkpoints and notes the run's
record, in this order, so that a checkpoint never lacks what the logs have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl

from losslab import console
from losslab.errors import Diverged, Interrupted
from losslab.metric import Metric, better
from losslab.records import Record
from losslab.reports import Validated
from losslab.run_folder import RunFolder
from losslab.training.callbacks.ends import find_stop
from losslab.training.callbacks.state import Intervals, RunState
from losslab.training.callbacks.validation_hooks import ValidationHooks, show
from losslab.training.module import LossModule
from losslab.training.output.checkpoints import amend, keep_newest, link
from losslab.training.output.logs import MetricsLog, learning_rate_column
from losslab.training.output.messages import note, say
from losslab.training.output.progress import RunProgress
from losslab.training.scoring.evaluator import Evaluator
from losslab.training.step_report import StepReport


class RunCallback(pl.Callback):
    """Args:
    primary: the metric whose best value on val makes a checkpoint the best one.
    contents: what a checkpoint holds beside weights and states: plain values under names of their own.
    keep: how many of the newest checkpoints stay.
    metrics_log, record: None on ranks that do not write.
    callbacks: those of the configuration by their names, which stand before this one.
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
        callbacks: Mapping[str, pl.Callback],
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
        self.callbacks = callbacks
        self.before_fit = before_fit
        self.began = began
        self._first = state.step + 1
        self._row: dict[str, float] = {}
        self._module: LossModule | None = None
        self._report: StepReport | None = None
        self._stop = False
        self._closed = state.step
        self._hooks: ValidationHooks | None = None
        self._seconds_before = state.seconds
        self._started = time.monotonic()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._hooks = ValidationHooks(trainer, pl_module)
        # A run that was stopped trains no further. Another that a callback stops before its first step makes that one,
        # after which the callback stops it again: there would be no weights to score, and no step to save at.
        trainer.should_stop = self.state.stopped is not None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before_fit()
        self.progress.begin()
        assert isinstance(pl_module, LossModule)
        if self.state.due is not None:
            self._catch_up(pl_module)

    def open(self, trainer: pl.Trainer, module: LossModule, step: int) -> None:
        """Count a completed step, before any other callback sees it."""
        if step == self._first and self.record is not None:
            self.record.timing["first_step"] = time.monotonic() - self.began
        self.state.step = step
        self._module = module
        self._take_reports(
            wait=self.intervals.logged(step) or self.intervals.validated(step) or self.intervals.saved(step)
        )
        row: dict[str, float] = {}
        self._row = row
        report = self._report
        if self.intervals.logged(step) and report is not None:
            row |= {"train/objective": report.objective, "train/tokens": self.state.tokens}
            row |= {learning_rate_column(name): rate for name, rate in report.learning_rates.items()}
            row |= {f"train/objective/{name}": value for name, value in report.terms.items()}
            row |= {f"grad_norm/{name}": norm for name, norm in report.gradient_norms.items()}
            show(trainer, row)
        self.state.due = row if self.intervals.validated(step) else None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LossModule)
        step = self.state.step
        if step != trainer.global_step or step == self._closed:
            return  # inside an accumulation window
        self._closed, self.state.due = step, None
        row, improved = self._row, False
        stopping = self._agree_to_stop(trainer)
        if self._stop or stopping:
            self._take_reports(wait=True)
        if self.intervals.saved(step) or self._stop or stopping:
            pl_module.check_weights(step)
        if self.intervals.validated(step) or stopping:
            improved = self._validate(row)
            stopping = self._agree_to_stop(trainer)
        if stopping and step < self.intervals.total:
            self._note_stop()
        self._log(step, row)
        if self._report is not None:
            self.progress.step(step, self._report.objective)
        if self.intervals.saved(step) or ((self._stop or stopping) and self.intervals.checkpoint):
            self._save(trainer, improved)
        if self.intervals.validated(step) and console.listener is not None:
            console.listener(Validated(step, row[f"val/{self.primary.name}"]))
        if self._stop:
            raise Interrupted(f"stopped by a signal after step {step}")

    def complete(self, checkpoint: dict[str, Any]) -> None:
        """Add to a checkpoint what Lightning does not know of, to one of weights alone, too."""
        self._take_reports(wait=True)
        checkpoint["losslab"] = dict(vars(self.state))
        for schedule in checkpoint.get("lr_schedulers", []):  # a pure function of the step, whatever it keeps to itself
            if "lr_lambdas" in schedule:
                schedule["lr_lambdas"] = [None] * len(schedule["lr_lambdas"])
        checkpoint.update(self.contents)

    def _take_reports(self, *, wait: bool) -> None:
        """Count the steps whose numbers have come from the device.

        Args:
            wait: for those of the last step, which somebody needs now.
        """
        for report in [] if self._module is None else self._module.take_reports(wait=wait):
            self.state.tokens += report.weight
            self._stop = self._stop or report.stop
            self._report = report

    def _agree_to_stop(self, trainer: pl.Trainer) -> bool:
        """Whether a callback on any rank ends training."""
        if self.callbacks:
            trainer.should_stop = trainer.strategy.reduce_boolean_decision(trainer.should_stop, all=False)
        return trainer.should_stop

    def _note_stop(self) -> None:
        """Keep who ended training where and why, for the record and for a run that is resumed."""
        by, reason = find_stop(self.callbacks)
        self.state.stopped = {"step": self.state.step, "by": by, "reason": reason}
        if self.metrics_log is not None:
            self.metrics_log.ends_at(self.state.step)
        if self.record is not None:
            self.record.stopped = self.state.stopped
            say(f"stopped after step {self.state.step:,} of {self.intervals.total:,} by callbacks.{by}: {reason}")

    def _log(self, step: int, row: dict[str, float]) -> None:
        if self.metrics_log is None:
            return
        self.state.logged = self.metrics_log.of_callbacks()
        if row or self.state.logged:
            self.metrics_log.write(step, row, self.state.best)

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
        with self.progress.paused(), nullcontext() if self._hooks is None else self._hooks.around():
            values = thorough = self.evaluator.validate(thorough=last and not self.evaluator.scores_parts)
            if last and self.evaluator.scores_parts:
                thorough = self.evaluator.validate(thorough=True)
            self.state.validation_seconds += time.monotonic() - started
            improved = self._judge(row, values, thorough)
            if self._hooks is not None:
                self._hooks.ended({key: value for key, value in row.items() if key.startswith("val/")})
        return improved

    def _judge(self, row: dict[str, float], values: dict[str, float], thorough: dict[str, float]) -> bool:
        """Take a validation into the row and the state: whatever a callback saves from here on has it."""
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
