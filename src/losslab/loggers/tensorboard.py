"""TensorBoard, the default: event files in the run's folder."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from losslab.loggers.base import RunLogger, Session, flat
from losslab.loggers.events import EventFile, has_row, has_scalars

_SUCCESS = {"completed": True, "failed": False, "diverged": False}
"""A run that was only stopped stays open in the HParams tab."""


class TensorBoard(RunLogger):
    """Values as scalars, one row of the run in the HParams tab."""

    is_local = True

    def __init__(self, *, save_dir: str) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._session: Session
        self._events: EventFile

    @property
    def name(self) -> str:
        return "tensorboard"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    def experiment(self) -> EventFile:
        return self._events

    def begin(self, session: Session) -> int:
        self._session = session
        if not session.trains and has_row(self._folder):
            self._events = EventFile(self._folder, purge_from=None)
            return session.step + 1
        is_new = session.had_lost or not has_scalars(self._folder)
        first = 1 if session.had_lost else session.step + 1 - session.is_last_again
        self._events = EventFile(self._folder, purge_from=first)
        return 0 if is_new else first

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._events.scalars(step or 0, metrics)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        if self._session.trains or not has_row(self._folder):
            self._events.hparams(flat(params), self._session.metrics)

    def save(self) -> None:
        self._events.flush()

    def finalize(self, status: str) -> None:
        try:
            if status in _SUCCESS:
                self._events.result(_SUCCESS[status])
            self._events.flush()
        finally:
            self._events.close()
