"""The same multirun under our launcher and under Hydra's basic one, in turns.

Wall time is that of the whole command, imports included. The basic launcher trains one run after the other, with all
cores, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tools.options import add_rounds, words_of
from losslab.data.python_docs import read_texts

LAUNCHERS = ("basic", "local")
CHARACTERS = 400_000
"""Characters of the built-in corpus: enough to train on, little enough to validate on at every size."""


@dataclass(frozen=True)
class Sweep:
    """A multirun of one model size."""

    size: str
    losses: str
    seeds: str
    steps: int
    batch_size: int = 16

    @property
    def runs(self) -> int:
        return len(self.losses.split(",")) * len(self.seeds.split(","))

    def overrides(self, name: str) -> list[str]:
        return [
            "data=text",
            "data.path=text.txt",
            "data.vocab_size=2048",
            f"data.batch_size={self.batch_size}",
            f"model/size={self.size}",
            f"loss={self.losses}",
            f"seed={self.seeds}",
            f"trainer.max_steps={self.steps}",
            f"trainer.val_check_interval={self.steps}",
            f"name={name}",
        ]


THREE = "cross_entropy,kl_divergence,square"
SWEEPS = [
    Sweep("nano", THREE, "1,2,3", steps=100),
    Sweep("micro", THREE, "1,2", steps=10),
    Sweep("small", "cross_entropy,square", "1,2", steps=3),
]


def run(sweep: Sweep, launcher: str, folder: Path, name: str) -> float:
    """Seconds that the command takes."""
    command = [sys.executable, "-m", "losslab", "train", "-m", f"hydra/launcher={launcher}", *sweep.overrides(name)]
    started = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def first_steps(folder: Path) -> list[float]:
    """Seconds from each run's start to its first optimizer step, in the order of their starts; not of the first."""
    timings = [json.loads(path.read_text())["timing"] for path in folder.glob("*/run.json")]
    return [timing["first_step"] for timing in sorted(timings, key=lambda timing: timing["started"])[1:]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser, "of each size; the median ratio counts")
    sizes = [sweep.size for sweep in SWEEPS]
    parser.add_argument(
        "--sizes", type=words_of(sizes), default=",".join(sizes), metavar="SIZE,…", help="default: %(default)s"
    )


def main(arguments: argparse.Namespace) -> int:
    """Print the tables."""
    print(f"{os.cpu_count()} cores; {arguments.rounds} round(s); wall seconds of the same runs, and their ratio")
    print(f"{'size':<8}{'runs':>5}{'steps':>6}{'basic':>9}{'local':>9}{'local/basic':>13}", flush=True)
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        text = "\n\n".join(read_texts())[:CHARACTERS]
        (folder / "text.txt").write_text(text, encoding="utf-8")
        for sweep in (sweep for sweep in SWEEPS if sweep.size in arguments.sizes):
            run(Sweep(sweep.size, "square", "1", steps=1), "basic", folder, "warm")  # the text is tokenised once
            seconds: dict[str, list[float]] = {launcher: [] for launcher in LAUNCHERS}
            for i in range(arguments.rounds):
                for launcher in LAUNCHERS if i % 2 else reversed(LAUNCHERS):
                    name = f"{sweep.size}-{launcher}-{i}"
                    seconds[launcher].append(run(sweep, launcher, folder, name))
                waits += first_steps(folder / "outputs" / f"{sweep.size}-local-{i}") if sweep.size == "nano" else []
            basic, local = (statistics.median(seconds[launcher]) for launcher in LAUNCHERS)
            ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
            print(f"{sweep.size:<8}{sweep.runs:>5}{sweep.steps:>6}{basic:>9.1f}{local:>9.1f}{ratio:>13.2f}", flush=True)
    if waits:
        print(
            f"first step of a job after the first (nano): median {statistics.median(waits):.2f} s, "
            f"slowest {max(waits):.2f} s after its start"
        )
    return 0
