"""The loggers of a run: each receives the same rows, and one that fails ends neither the run nor the others."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from textwrap import shorten
from typing import Any

from lightning.pytorch.loggers.logger import DummyLogger, Logger

from losslab.config.binding import OFFERED, import_target
from losslab.config.components import build
from losslab.config.identity import NOT_IDENTITY, loss_label
from losslab.config.stored import INPUTS, LOGGERS, ORIGINS
from losslab.errors import UserError, error_sentence
from losslab.loggers.base import RunLogger, Session
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.output.hyperparameters import hparams_of
from losslab.training.output.messages import note, say
from losslab.training.random import untouched_streams

_GUARDED = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint")
_LIGHTNINGS = {"completed": "success"}
"""Statuses in Lightning's words; every other is `failed`."""

_LONGEST = 300
"""Characters of somebody else's words that a note holds; train.log has the rest."""
_ENDED = ("completed", "failed", "diverged")
Rows = list[tuple[int, dict[str, float]]]
"""Values by optimizer step."""
History = Callable[[int], Rows]

_log = logging.getLogger("losslab")


class _Guarded:
    """A logger whose methods raise nothing, whoever calls them: the first exception is reported, and it is left alone.

    Callbacks find the same object in `trainer.loggers`. Lightning would finalize it before the run is scored: that is
    left to `close`.
    """

    def __init__(self, name: str, make: Callable[[], Logger], lose: Callable[[str, BaseException], None]) -> None:
        self.name = name
        self.lost = False
        self.has_begun = False
        self._lose = lose
        made = self.call(make)
        self.logger: Logger = DummyLogger() if made is None else made
        self._finalize = self.logger.finalize
        self._log = self.logger.log_metrics
        self.of_callbacks: dict[str, float] = {}
        for method in _GUARDED:
            setattr(self.logger, method, partial(self.call, getattr(self.logger, method)))
        self.logger.log_metrics = self._collect  # type: ignore[method-assign]
        self.logger.finalize = lambda status: None  # type: ignore[method-assign]

    def call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if self.lost:
            return None
        try:
            with untouched_streams():
                return method(*arguments, **named)
        except (Exception, SystemExit) as error:  # somebody else's package may raise anything
            self.lost = True
            self._lose(self.name, error)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log a row, with what callbacks have logged since the last one."""
        self.call(self._log, values | self.take(), step=step)

    def take(self) -> dict[str, float]:
        """The values of callbacks since the last call."""
        values, self.of_callbacks = self.of_callbacks, {}
        return values

    def _collect(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep what a callback logs for the row of the optimizer step, whatever step it counts: after a resume, too, a
        logger then has each step once."""
        self.of_callbacks |= {name: float(value) for name, value in metrics.items() if name != "epoch"}

    def close(self, status: str) -> None:
        """Finalize it, and of one that is lost, or was stopped before it began, whatever still can be."""
        word = status if isinstance(self.logger, RunLogger) else _LIGHTNINGS.get(status, "failed")
        if not self.lost and (self.has_begun or not isinstance(self.logger, RunLogger)):
            self.call(self._finalize, word)
            return
        with untouched_streams(), suppress(Exception):
            self._finalize(word)


class Loggers:
    """Loggers of one session, on the rank that writes. The row of the last step waits for the final values, so that a
    logger has one row a step."""

    def __init__(self, run: RunFolder, config: dict[str, Any], record: Record) -> None:
        self._run = run
        self._config = config
        self._record = record
        self._total = config["trainer"]["max_steps"]
        self._guarded: list[_Guarded] | None = None
        self._has_begun = False
        self._step = record.step
        self._waiting: tuple[int, dict[str, float]] | None = None
        self._history: History
        self._about: Callable[..., Session]
        self._mending = False

    @property
    def lightning(self) -> list[Logger]:
        """The loggers themselves, for Lightning's Trainer."""
        return [one.logger for one in self._opened()]

    def begin(
        self,
        history: History,
        *,
        step: int,
        metrics: Sequence[str],
        trains: bool = True,
        of_callbacks: Mapping[str, float] | None = None,
    ) -> None:
        """Open each logger, describe the run, and log what it lacks.

        Args:
            history: the rows that the run has logged up to a step.
            metrics: names of those that final values have.
            trains: False where the run has ended before it could train.
            of_callbacks: what callbacks logged at `step`.
        """
        self._has_begun, self._step, self._history = True, step, history
        rows = history(step)
        again = trains and bool(rows) and rows[-1][0] == step == self._total
        if again:
            self._waiting = step, rows.pop()[1] | dict(of_callbacks or {})
        self._about = partial(
            Session,
            run=self._run.absolute(),
            sweep=self._record.name,
            tags=_tags(self._config, self._record),
            metrics=metrics,
            trains=trains,
            keep=partial(self._run.write, self._record),
        )
        for one in self._opened():
            had_lost = isinstance(one.logger, RunLogger) and bool(self._kept(one.name).pop("lost", None))
            self._open(one, rows, had_lost=had_lost, is_last_again=again)

    def _open(self, one: _Guarded, rows: Rows, *, had_lost: bool, is_last_again: bool = False) -> None:
        first = self._step + 1
        if isinstance(one.logger, RunLogger):
            kept, step = self._kept(one.name), self._step
            session = self._about(step=step, kept=kept, had_lost=had_lost, is_last_again=is_last_again)
            first = one.call(one.logger.begin, session)
            one.has_begun = True
            if not one.lost and session.trains and one.logger.place:
                say(f"log    {one.logger.place}")
        one.logger.log_hyperparams(hparams_of(self._config, self._record))
        for step, values in rows if not one.lost else ():
            if step >= first:
                one.log(step, dict(values))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log an optimizer step; the last one waits for `finish`."""
        self._step = step
        if step == self._total:
            for one in self._opened():
                values = values | one.take()
            self._waiting = step, values
        else:
            self._log(step, values)

    def of_callbacks(self) -> dict[str, float]:
        """Values that callbacks have logged since the last row."""
        found: dict[str, float] = {}
        for one in self._opened():
            found |= one.of_callbacks
        return found

    def ends_at(self, step: int) -> None:
        """Take this step for the last one: a callback ended the run before its budget did."""
        self._total = step

    def save(self) -> None:
        """Write what was logged, before a checkpoint counts it as done."""
        for one in self._opened():
            one.logger.save()

    def finish(self, step: int, values: dict[str, float]) -> None:
        """Log the final values together with the row of the last step, and close the logs."""
        _, row = self._waiting or (step, {})
        self._waiting = step, row | values
        self.close("completed")

    def close(self, status: str) -> None:
        """Close the logs with the status of the run, once; those that were never opened stay so."""
        last = [self._waiting] if self._waiting is not None and status in _ENDED else []
        for step, values in last:
            self._log(step, values)
        self._waiting = None
        for one in self._guarded or ():
            one.close(status)
            if one.lost and isinstance(one.logger, RunLogger) and one.logger.is_local and status in _ENDED:
                self._mend(one, status, last)
        self._guarded = []

    def _mend(self, one: _Guarded, status: str, last: Rows) -> None:
        """Write a log once more from the first row on: a disk that failed for a moment may work again."""
        self._mending, one.lost = True, False
        self._open(one, self._history(self._step - len(last)), had_lost=True)
        for step, values in last:
            one.log(step, dict(values))
        one.close(status)
        if not one.lost:
            self._kept(one.name).pop("lost", None)
            _log.info("loggers.%s is whole again", one.name)

    @property
    def has_begun(self) -> bool:
        return self._has_begun

    def _log(self, step: int, values: dict[str, float]) -> None:
        for one in self._opened():
            one.log(step, dict(values))

    def _opened(self) -> list[_Guarded]:
        if self._guarded is None:
            # A trial (fast_dev_run) logs nowhere.
            nodes = {} if self._config["trainer"]["fast_dev_run"] is not None else self._config[LOGGERS]
            self._guarded = [
                _Guarded(name, partial(self._make, name, node), self._lose) for name, node in nodes.items()
            ]
        return self._guarded

    def _kept(self, name: str) -> dict[str, Any]:
        kept: dict[str, Any] = self._record.provenance.setdefault(LOGGERS, {}).setdefault(name, {})
        return kept

    def _make(self, name: str, node: dict[str, Any]) -> Logger:
        return make_logger(name, node, str(self._run.absolute()))

    def _lose(self, name: str, error: BaseException) -> None:
        _log.info("%s", traceback.format_exc())
        told = f"it called sys.exit({error})"
        if isinstance(error, Exception):
            told = str(error) if isinstance(error, UserError) else error_sentence(error)
        told = shorten(told, _LONGEST, placeholder=" …")
        if not self._mending:
            note(f"loggers.{name} is lost from step {self._step} on, and the run goes on without it: {told}")
        self._kept(name).setdefault("lost", []).append({"step": self._step, "error": told})


def make_logger(name: str, node: dict[str, Any], save_dir: str) -> Logger:
    """Build a logger.

    Args:
        save_dir: the run's folder, where the constructor takes it and nobody set it.

    Raises:
        UserError: where its settings are refused, or its package is missing.
    """
    target = import_target(node["_target_"], f"{LOGGERS}.{name}")
    free = OFFERED[LOGGERS] & inspect.signature(target).parameters.keys() - node.keys()
    logger: Logger = build(node, f"{LOGGERS}.{name}", **dict.fromkeys(free, save_dir))
    return logger


def check_loggers(config: dict[str, Any]) -> None:
    """Refuse classes that are no loggers, and settings that ours refuse; others are made when a run begins, as they may
    open connections. Raises UserError."""
    for name, node in config[LOGGERS].items():
        target = import_target(node["_target_"], f"{LOGGERS}.{name}")
        if not issubclass(target, Logger):
            raise UserError(f"{LOGGERS}.{name}: {target.__name__} is no Logger of Lightning's")
        if issubclass(target, RunLogger):
            make_logger(name, node, "")


def placeholders(config: dict[str, Any]) -> list[Logger]:
    """As many loggers that log nothing, for the other ranks, where callbacks look for some."""
    return [DummyLogger() for _ in config[LOGGERS]]


def _tags(config: dict[str, Any], record: Record) -> dict[str, str]:
    """The loss, the seed, and what else was typed of what decides the result."""
    choices = {"loss": config["loss"]["_target_"].rpartition(".")[2]} | record.provenance.get("choices", {})
    tags = {"loss": loss_label(choices), "seed": str(config["seed"])}
    for word in record.overrides:
        key, _, value = word.lstrip("+~").partition("=")
        outside = key in (*NOT_IDENTITY, *INPUTS, *ORIGINS) or key.partition(".")[0] in NOT_IDENTITY
        if not outside and "@" not in key:
            tags.setdefault(key, value)
    return tags
