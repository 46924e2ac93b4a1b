"""Helpers of the end-to-end tests: a small text, runs that take seconds, and the command as a person starts it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import warm_process
from losslab import run_folder
from losslab.records import Record
from losslab.run_folder import RunFolder
from warm_process import WarmProcess

TINY = [
    "data=text",
    "data.path=book.txt",
    "data.tokenizer=bytes",
    "data.batch_size=4",
    "model.num_layers=1",
    "model.num_heads=2",
    "model.width=16",
    "model.context=32",
    "scheduler.warmup_steps=2",
    "trainer.max_steps=8",
    "trainer.val_check_interval=4",
    "trainer.log_every_n_steps=2",
    "trainer.threads=1",
    "loggers=none",
]
"""A run of a second or two on book.txt in the current folder."""


BETTER_EARLY = [
    "optimizer.lr=30.0",
    "scheduler=constant",
    "scheduler.warmup_steps=0",
    "trainer.max_steps=9",
    "trainer.val_check_interval=3",
    "data.rules=1",
]
"""A run whose validations, at steps 3, 6 and 9, become much worse: the best checkpoint is not the last."""


def make_text(seed: int = 0, paragraphs: int = 120) -> str:
    """Sentences of made-up words, in paragraphs."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdeilmnorstu", k=rng.randint(2, 8))) for _ in range(200)]
    return "\n\n".join(
        " ".join(rng.choices(words, k=rng.randint(20, 60))).capitalize() + "." for _ in range(paragraphs)
    )


def find_runs(folder: Path) -> list[Path]:
    """The folders of the runs below `folder`, or that folder itself where it is one."""
    return [run.path for run in run_folder.find_runs(folder)]


@contextmanager
def unimported(*packages: str) -> Iterator[None]:
    """Modules of these packages are imported again in here, and by whoever comes after."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            del sys.modules[name]

    forget()
    yield
    forget()


def only_run(folder: Path) -> tuple[Path, Record]:
    """The one run in a folder, and its record."""
    (run,) = find_runs(folder)
    return run, RunFolder(run).record()


@contextmanager
def stopping_after(step: int | None = None) -> Iterator[None]:
    """Runs that train in here are interrupted once they have saved this step, or at their first checkpoint."""
    from losslab.errors import Interrupted
    from losslab.training.callbacks.run_callback import RunCallback

    save = RunCallback._save

    def save_then_stop(self: RunCallback, trainer: Any, improved: bool) -> None:
        save(self, trainer, improved)
        if step in (None, self.state.step):
            raise Interrupted("for the test")

    with patch.object(RunCallback, "_save", save_then_stop):
        yield


def losslab(*arguments: str, cwd: Path, group: bool = False, new: bool = False) -> subprocess.Popen[str] | WarmProcess:
    """Start the command as a person would, in a process of its own, or as a terminal does, in a group of its own.

    Args:
        new: import everything there, too, where a test is about the first seconds, or about what is imported.
    """
    if not new and warm_process.can_fork():
        return WarmProcess([*arguments], cwd=cwd, group=group)
    return subprocess.Popen(
        [warm_process.PYTHON, "-m", "losslab", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0 if group else None,
    )
