"""Messages of a run: its introduction and its result on the terminal, everything else in train.log."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from losslab import console
from losslab.config.flags import debug_of, describe_passes
from losslab.contracts import DataInfo, DataModule, Task
from losslab.records import Record
from losslab.run_folder import RunFolder
from losslab.training.limits import Limits
from losslab.training.network import Network

_LIGHTNING = ("lightning.pytorch", "lightning.fabric")
_CALLBACKS = "lightning.pytorch.callbacks"
"""Whose information is kept, too: a person chose them."""

_log = logging.getLogger("losslab")


def say(message: str) -> None:
    """Print a line on the terminal and into train.log."""
    console.say(message)
    _log.info(message)


def note(message: str) -> None:
    """Print a note on standard error, and write it to the log."""
    console.note(message)
    _log.warning(message)


def introduce(
    run: RunFolder, config: dict[str, Any], record: Record, data: DataModule, network: Network, step: int
) -> None:
    settings, flops = config["trainer"], record.throughput.get("flops_per_token")
    threads = record.hardware["threads"]
    parameters = sum(p.numel() for p in network.parameters())
    cost = (
        "" if flops is None else f", {flops / 1e6:,.2f} MFLOP per trained {positions_of(network.task, data.info)[:-1]}"
    )
    say(f"run    {run}" + (f" (continues after step {step})" if step else ""))
    say(f"model  {parameters:,} parameters{cost}")
    limits, interim = Limits.of(config, data.info), settings["interim_eval_tokens"]
    for line, is_note in data.introduction(0 if limits.covers(interim) else interim):
        (note if is_note else say)(line)
    if told := network.task.told():
        say(f"task   {told}")
    length = f" × {data.info.mean_positions:g} tokens" if network.task.of_stream else " samples"
    samples = data.batch_size if data.samples_per_step == data.batch_size else f"{data.samples_per_step:,.1f}"
    say(
        f"train  {settings['max_steps']:,} steps of {samples}{length} "
        f"on {record.hardware['ranks']} {record.hardware['device']} ({threads} thread{'s' if threads != 1 else ''}), "
        f"{settings['precision']}"
    )
    for text in describe_passes(record.provenance.get("worked_out") or {}):
        say(f"       {text}")
    if debug := debug_of(config):
        flags = ", ".join(f"{key}={value}" for key, value in debug.items())
        note(f"a debug run ({flags}): its numbers are of a part of the data, and compare leaves it out")
    if settings["precision"] in ("bf16-true", "16-true"):
        note(
            f"trainer.precision={settings['precision']} keeps the weights in half precision: updates below about 1e-3 "
            "of a weight vanish, and losses that need small ones look worse than they are; bf16-mixed does not do that"
        )


def positions_of(task: Task, info: DataInfo) -> str:
    """The name of a task's positions: `rows`, where each has one."""
    return "tokens" if task.of_stream else "rows" if info.mean_positions == 1 else "positions"


def report(record: Record) -> None:
    """The metrics of the best checkpoint, val beside test, as a person reads them."""
    best = record.metrics["best"]
    say(f"best checkpoint: step {best['step']:.0f} of {record.step}, in {record.timing['seconds']:.0f} s of training")
    names = [name for name in record.names_shown("terminal") if f"val/{name}" in best or f"test/{name}" in best]
    width = console.width_of(names)
    say(f"{'':<{width}}{'val':>12}{'test':>12}")
    for name in names:
        say(f"{name:<{width}}" + "".join(console.figure(best.get(f"{part}/{name}")) for part in ("val", "test")))
    for name in names:
        if signature := record.declared[name].signature:
            say(f"{name}: {signature}")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """No banners about devices and tips on the terminal."""
    loggers = [logging.getLogger(name) for name in _LIGHTNING]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)


class _QuietFile(logging.FileHandler):
    """A full disk ends the run where a checkpoint cannot be written, not with a traceback for each line of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: the run goes on without its log."""


@contextmanager
def logging_to(run: RunFolder, rank: int) -> Iterator[None]:
    """Warnings, Lightning's too, go to train.log, beside our own lines; the terminal shows what a person needs. Of the
    ranks beyond 0 only failures are kept."""
    handler = _QuietFile(run.log, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("losslab", "py.warnings", *_LIGHTNING)]
    saved = [(log, log.handlers, log.propagate, log.level) for log in loggers]
    for log in loggers:
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.WARNING if log.name in _LIGHTNING else logging.INFO)
    logging.getLogger(_CALLBACKS).setLevel(logging.INFO)
    handler.setLevel(logging.NOTSET if rank == 0 else logging.ERROR)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # between Lightning and torch, at every start
            yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger(_CALLBACKS).setLevel(logging.NOTSET)
        for log, handlers, propagate, level in saved:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
        with contextlib.suppress(OSError):
            handler.close()
