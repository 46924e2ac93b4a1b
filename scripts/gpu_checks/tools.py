"""Helpers of the parts of scripts/gpu_check: sizes, tables, and tiny runs through the command."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losslab.records import Record
from losslab.run_folder import find_runs


@dataclass(frozen=True)
class Sizes:
    """How large everything is; `device` is cuda or cpu."""

    device: str
    half: str
    """The precision whose scaler is tried; a CPU has no float16 training."""
    loss_positions: int
    """Targets of each loss that is compared with float64."""
    positions: int
    width: int
    num_outputs: int
    rounds: int
    model: tuple[str, ...]
    vocab_size: int
    context: int
    batch_size: int
    steps: int

    @classmethod
    def full(cls) -> Sizes:
        gpt2 = ("model.num_layers=12", "model.num_heads=12", "model.width=768")
        return cls("cuda", "16-mixed", 997, 8192, 4096, 128256, 3, gpt2, 50304, 1024, 32, 60)

    @classmethod
    def small(cls) -> Sizes:
        tiny = ("model.num_layers=2", "model.num_heads=2", "model.width=32")
        return cls("cpu", "bf16-mixed", 97, 64, 16, 512, 1, tiny, 512, 64, 4, 6)

    @property
    def trainer(self) -> list[str]:
        return [f"trainer.accelerator={'gpu' if self.device == 'cuda' else 'cpu'}", "trainer.devices=1"]


@dataclass
class Table:
    """Rows under a header, and whether what they show is right."""

    header: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Faults, in sentences."""
    note: str = ""


@dataclass(frozen=True)
class Section:
    name: str
    tables: list[Table]
    error: str
    seconds: float

    @property
    def failed(self) -> bool:
        return bool(self.error) or any(table.wrong for table in self.tables)

    def line(self) -> str:
        wrong = [sentence for table in self.tables for sentence in table.wrong]
        said = self.error or "; ".join(wrong) or "right"
        return f"{'FAILED' if self.failed else 'ok':<7}{self.name:<34}{self.seconds:6.1f} s  {said}"

    def plain(self) -> dict[str, Any]:
        tables = [{"header": t.header, "rows": t.rows, "wrong": t.wrong, "note": t.note} for t in self.tables]
        return {
            "name": self.name,
            "failed": self.failed,
            "error": self.error,
            "seconds": self.seconds,
            "tables": tables,
        }

    def markdown(self) -> list[str]:
        lines = [f"## {self.name}", "", self.line().partition(" s  ")[2], ""]
        for table in self.tables:
            lines += [_row(table.header), _row(["---"] * len(table.header)), *map(_row, table.rows), ""]
            lines += [table.note, ""] if table.note else []
        return lines


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def write_text(path: Path, words: int = 60_000, vocabulary: int = 500, seed: int = 0) -> None:
    """Made-up words, w0 w1 …, in paragraphs; the next word depends on the last, so that there is something to learn."""
    drawn, word = random.Random(seed), 0
    lines = []
    for _ in range(words // 60):
        line = []
        for _ in range(60):
            word = (7 * word + drawn.choice((1, 2, 3, 5))) % vocabulary
            line.append(f"w{word}")
        lines.append(" ".join(line))
    path.write_text("\n\n".join(lines), encoding="utf-8")


def tiny(sizes: Sizes) -> list[str]:
    """Overrides of a run of seconds on book.txt in the current folder."""
    return [
        *("data=text", "data.path=book.txt", "data.tokenizer=bytes", "data.batch_size=8", "loggers=none"),
        *("model.num_layers=2", "model.num_heads=2", "model.width=64", "model.context=64"),
        *("scheduler.warmup_steps=2", "trainer.max_steps=20", "trainer.val_check_interval=10"),
        *sizes.trainer,
    ]


def losslab(*arguments: str, cwd: Path) -> str:
    """Run the command; returns what it printed.

    Raises:
        RuntimeError: with its last lines, where it ended with another code than 0.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p)}
    ended = subprocess.run(
        [sys.executable, "-m", "losslab", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        last = " / ".join(ended.stdout.strip().splitlines()[-3:])
        raise RuntimeError(f"losslab {' '.join(arguments)} ended with code {ended.returncode}: {last}")
    return ended.stdout


def records(folder: Path) -> dict[str, Record]:
    """The records of a sweep's runs by the loss that was chosen, or by what tells them apart."""
    found = [run.record() for run in find_runs(folder)]
    return {str(record.provenance["choices"]["loss"]): record for record in found}
