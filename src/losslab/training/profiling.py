"""trainer.profiler: Lightning's profilers, whose reports land in the run's folder, and those of a person's own; and
trainer.detect_anomaly."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from losslab.config.components import build
from losslab.errors import Diverged, UserError

_log = logging.getLogger("losslab")
_ANOMALY = "returned nan values"
"""Part of what autograd says of a gradient that is NaN."""
_SHIPPED: dict[str, Callable[..., Profiler]] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}
_WAIT, _WARM_UP, _ACTIVE = 1, 1, 3
"""Batches of PyTorch's profiler: left out, measured and thrown away, and kept."""


def make_profiler(choice: str | dict[str, Any] | None, folder: Path, batches: int) -> Profiler | None:
    """The profiler of a run; None for none.

    Args:
        choice: `trainer.profiler`: a name, or a node with a `_target_`.
        folder: where its reports go.
        batches: micro-batches that are trained. PyTorch's profiler keeps three of them in one trace, or all where they
            are few; left to itself Lightning's writes a trace every fifth batch, for it reads no length off our data.

    Raises:
        UserError: for a class that is no profiler, or refuses its arguments.
    """
    if choice is None:
        return None
    if choice == "pytorch":
        enough = batches >= _WAIT + _WARM_UP + _ACTIVE
        schedule = torch.profiler.schedule(wait=_WAIT, warmup=_WARM_UP, active=_ACTIVE, repeat=1) if enough else None
        return PyTorchProfiler(dirpath=folder, filename=choice, schedule=schedule)
    if isinstance(choice, str):
        return _SHIPPED[choice](dirpath=folder, filename=choice)
    profiler: Any = build(choice, "trainer.profiler")
    if not isinstance(profiler, Profiler):
        raise UserError(
            f"trainer.profiler: {type(profiler).__name__} must derive from lightning.pytorch.profilers.Profiler"
        )
    profiler.dirpath = profiler.dirpath or folder
    profiler.filename = profiler.filename or type(profiler).__name__
    found: Profiler = profiler
    return found


def write_reports(trainer: pl.Trainer) -> None:
    """Write the reports of a run that was stopped or failed. An exception here must not hide why the run ended."""
    try:
        trainer.profiler.describe()  # type: ignore[attr-defined]
    except Exception:  # a person's profiler may raise anything
        _log.error("trainer.profiler: the report cannot be written\n%s", traceback.format_exc())


@contextmanager
def named_anomalies(trainer: pl.Trainer) -> Iterator[None]:
    """Make a NaN that trainer.detect_anomaly finds in a backward pass what it is without that flag: divergence.

    Raises:
        Diverged: naming the operation; the log holds where it was called.
    """
    try:
        yield
    except RuntimeError as error:
        if _ANOMALY not in str(error):
            raise
        _log.error("%s", traceback.format_exc())
        said = str(error).rstrip(".")
        raise Diverged(f"{said} at step {trainer.global_step + 1} (trainer.detect_anomaly)") from error
