"""What a run says: its introduction and its result on the terminal, everything else in train.log."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from losslab import console
from losslab.data.module import TextDataModule
from losslab.data.overlap import SHARE, WORDS
from losslab.data.splits import SPLITS
from losslab.records import Record
from losslab.training.network import Network

LOG = "train.log"
_FEW_SEEN = 0.01
"""Share of documents from which copies are worth a note."""
_EARLIER = {"val": "train", "test": "train or val"}
_LIGHTNING = ("lightning.pytorch", "lightning.fabric")

_log = logging.getLogger("losslab")


def say(message: str) -> None:
    """On the terminal and in train.log."""
    console.say(message)
    _log.info(message)


def note(message: str) -> None:
    """What a person should know, and the log too, on standard error."""
    console.complain(f"note: {message}")
    _log.warning(message)


def introduce(
    folder: Path, config: dict[str, Any], record: Record, data: TextDataModule, network: Network, step: int
) -> None:
    settings, meta = config["trainer"], data.cache.meta
    parameters = sum(p.numel() for p in network.parameters())
    tokens = " · ".join(f"{meta['tokens'][split]:,} {split}" for split in ("train", "val", "test"))
    say(f"run    {folder}" + (f" (continues after step {step})" if step else ""))
    say(f"model  {parameters:,} parameters, {network.flops_per_token() / 1e6:,.2f} MFLOP per trained token")
    _introduce_text(data)
    say(f"data   {tokens} tokens, vocabulary {data.num_outputs:,}")
    say(
        f"train  {settings['max_steps']:,} steps of {data.batch_size} × {data.context} tokens "
        f"on {record.hardware['ranks']} {record.hardware['device']} ({record.hardware['threads']} threads), "
        f"{settings['precision']}"
    )
    if told := _scored(data, settings["interim_eval_tokens"]):
        say(f"val    {told}")
    if settings["precision"] in ("bf16-true", "16-true"):
        note(
            f"trainer.precision={settings['precision']} keeps the weights in half precision: updates below about 1e-3 "
            "of a weight vanish, and losses that need small ones look worse than they are; bf16-mixed does not do that"
        )


def _scored(data: TextDataModule, interim: int) -> str | None:
    """What validations and the test score of their splits, where that is not all."""
    most = data.max_eval_tokens
    val, limited = data.num_positions("val"), data.num_positions("val", most)
    part = data.num_positions("val", min(interim or val, most or val))
    if limited == val and data.num_positions("test", most) == data.num_positions("test"):
        if part == val:
            return None
        return f"each validation scores {part:,} of {val:,} tokens (windows by hash), the last and the best all of them"
    tests = f"{data.num_positions('test', most):,} of {data.num_positions('test'):,} tokens of test"
    return (
        f"each validation scores {part:,} of {val:,} tokens, the last and the best {limited:,}, with {tests} "
        f"(data.max_eval_tokens={most}); windows chosen by hash"
    )


def _introduce_text(data: TextDataModule) -> None:
    """Which files and documents were read and split how; what of val and test is in train; what a tokenizer loses."""
    meta = data.cache.meta
    files = data.told_files()
    say(f"text   {files or 'the built-in corpus python_docs'}")
    documents = " · ".join(f"{meta['documents'][split]:,} {split}" for split in SPLITS)
    say(f"       {documents} documents ({meta['how']['documents']}); splits: {meta['how']['splits']}")
    if not any(found["copies"] + found["near_copies"] for found in meta["overlap"].values()):
        say("       no document of val or test is in an earlier split as well, whole or nearly")
    for split, found in meta["overlap"].items():
        if seen := found["copies"] + found["near_copies"]:
            line = (
                f"{seen:,} of {found['documents']:,} {split} documents are in {_EARLIER[split]} as well: "
                f"{found['copies']:,} the same, {found['near_copies']:,} nearly (they share {SHARE:.0%} of their "
                f"{WORDS}-word runs)"
            )
            if seen <= _FEW_SEEN * found["documents"] or files is None:
                say(f"       {line}")
            else:
                note(f"{line}; what a model remembers of them makes {split} look better than new text would")
    if not data.cache.round_trip.lossless:
        note(data.cache.round_trip.told(Path(data.tokenizer_choice).name))


def report(record: Record) -> None:
    """The metrics of the best checkpoint, val beside test, as a person reads them."""
    best = record.metrics["best"]
    say(f"best checkpoint: step {best['step']:.0f} of {record.step}, in {record.timing['seconds']:.0f} s of training")
    names = [name for name in record.names_shown("terminal") if f"val/{name}" in best or f"test/{name}" in best]
    width = console.width_of(names)
    say(f"{'':<{width}}{'val':>12}{'test':>12}")
    for name in names:
        say(f"{name:<{width}}" + "".join(console.figure(best.get(f"{part}/{name}")) for part in ("val", "test")))


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
def logging_to(folder: Path, rank: int) -> Iterator[None]:
    """Warnings, Lightning's too, go to train.log, beside our own lines; the terminal shows what a person needs. Of the
    ranks beyond 0 only failures are kept."""
    handler = _QuietFile(folder / LOG, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("losslab", "py.warnings", *_LIGHTNING)]
    saved = [(log, log.handlers, log.propagate, log.level) for log in loggers]
    for log in loggers:
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.WARNING if log.name in _LIGHTNING else logging.INFO)
    handler.setLevel(logging.NOTSET if rank == 0 else logging.ERROR)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # between Lightning and torch, at every start
            yield
    finally:
        logging.captureWarnings(False)
        for log, handlers, propagate, level in saved:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
        with contextlib.suppress(OSError):
            handler.close()
