"""The contract of a logger that knows about sessions: what it is given at the beginning, and what it answers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from lightning.pytorch.loggers.logger import Logger

from losslab.errors import UserError
from losslab.run_folder import RunFolder


@dataclass(frozen=True)
class Session:
    """One start of a run, as its loggers see it."""

    run: RunFolder
    sweep: str
    """The name that the runs of a comparison share."""
    tags: dict[str, str]
    """Settings that distinguish this run from the others: `{"loss": "focal", "seed": "1"}`."""
    step: int
    """Optimizer steps in the record so far; rows beyond it are not part of this run any more."""
    metrics: Sequence[str] = ()
    """Names of the metrics that the final values have."""
    is_last_again: bool = False
    """Whether all steps were done before, so that the row of the last one is logged again, with the final values."""
    trains: bool = True
    """False where a run ended before it could train, so that only its end is logged."""
    had_lost: bool = False
    """Whether this logger failed in an earlier session, and may lack rows."""
    kept: dict[str, Any] = field(default_factory=dict)
    """Notes that this logger keeps in run.json from one session to the next."""
    keep: Callable[[], None] = lambda: None
    """Write run.json now."""


class RunLogger(Logger):
    """A Lightning Logger that also learns where a session begins, so that each step is there once after a resume.

    Calls of a session, in this order: `begin`, `log_hyperparams`, `log_metrics` for the rows that `begin` asked for and
    for each new one, `save` before each checkpoint, `finalize` with the run's status: completed, failed, diverged or
    interrupted.
    """

    is_local: ClassVar[bool] = False
    """Whether a log that was lost is written again when the run ends: where that takes no network."""

    def begin(self, session: Session) -> int:
        """Open the log of a session. Returns the first step whose row is to be logged, of those recorded before."""
        raise NotImplementedError

    @property
    def place(self) -> str | None:
        """Where a person finds the log, in a few words; None where it lies in the run's folder."""
        return None


def need(package: str, extra: str) -> None:
    """Raises UserError naming the extra where a package is not installed; imports nothing."""
    if find_spec(package) is None:
        raise UserError(f"loggers={extra} needs the package {package}: pip install 'losslab[{extra}]'")


def flat(params: dict[str, Any] | Namespace) -> dict[str, Any]:
    """Hyper-parameters as a dict, in whichever of Lightning's two forms they come."""
    return vars(params) if isinstance(params, Namespace) else params
