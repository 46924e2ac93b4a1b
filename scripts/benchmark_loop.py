"""Everything that surrounds a step.

drift   tokens a second of a run of 5,000 small steps, at its beginning and at its end, by the clock of its event file
start   from the start of the command to the first optimizer step on a text that is tokenised already, beside
        `python -c "import lightning"`, in turns
sweep   the share of all cores' time that the processes of a sweep of nine runs compute
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmark_options import add_json, add_only, add_rounds, add_threads
from benchmark_turns import introduced, keep, ratio, told

from losslab.data.python_docs import read_texts

CHARACTERS = 400_000
LONG, WINDOW = 5000, 500
"""Steps of the run whose speed may drift, and of its first and last part that are compared."""
FIRST = 100
"""The step at which the first part begins."""
RUN = [
    "data=text",
    "data.path=text.txt",
    "data.vocab_size=2048",
    "model/size=nano",
    "trainer.enable_progress_bar=false",
]


def train(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "losslab", "train", *RUN, *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def clock(folder: Path) -> dict[int, float]:
    """Logged optimizer step → when it was logged."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    for path in sorted(folder.glob("*/**/events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            if any(value.tag == "train/objective" for value in event.summary.value):
                found[event.step] = event.wall_time
    return found


def drift(folder: Path, rounds: int) -> dict[str, Any]:
    early, late = [], []
    for i in range(rounds):
        train(folder, f"trainer.max_steps={LONG}", f"trainer.val_check_interval={LONG}", f"name=drift-{i}")
        times = clock(folder / "outputs" / f"drift-{i}")
        last = max(step for step in times if step < LONG)  # the last one is logged after a validation
        early.append((times[FIRST + WINDOW] - times[FIRST]) / WINDOW)
        late.append((times[last] - times[last - WINDOW]) / WINDOW)
    found = ratio(early, late)
    print(
        f"drift: speed of steps {last - WINDOW:,} to {last:,} over that of {FIRST} to {FIRST + WINDOW}: {told(found)}; "
        f"{1e3 * statistics.median(late):.1f} ms a step",
        flush=True,
    )
    return {"late_over_early": found, "early": early, "late": late}


def start(folder: Path, rounds: int) -> dict[str, Any]:
    short = ("trainer.max_steps=2", "trainer.log_every_n_steps=1", "trainer.val_check_interval=2")
    train(folder, *short, "name=warm")
    ours, imports = [], []
    for i in range(rounds):
        began = time.time()
        train(folder, *short, f"name=start-{i}")
        ours.append(clock(folder / "outputs" / f"start-{i}")[1] - began)
        began = time.time()
        subprocess.run([sys.executable, "-c", "import lightning"], check=True)
        imports.append(time.time() - began)
    found = ratio(ours, imports)
    print(
        f"start: command to first step over `import lightning`: {told(found)}; {statistics.median(ours):.2f} s and "
        f"{statistics.median(imports):.2f} s",
        flush=True,
    )
    return {"over_import": found, "first_step": ours, "import": imports}


def sweep(folder: Path, rounds: int) -> dict[str, Any]:
    shares, walls = [], []
    losses = "loss=cross_entropy,kl_divergence,square"
    for i in range(rounds):
        began, before = time.time(), _used()
        train(folder, "-m", losses, "seed=1,2,3", "trainer.max_steps=300", "trainer.val_check_interval=300",
              f"name=sweep-{i}")  # fmt: skip
        walls.append(time.time() - began)
        shares.append((_used() - before) / walls[-1] / (os.cpu_count() or 1))
    print(
        f"sweep: nine runs computed for {statistics.median(shares):.1%} [{min(shares):.1%}, {max(shares):.1%}] of all "
        f"cores' time; {statistics.median(walls):.1f} s",
        flush=True,
    )
    return {"busy": shares, "wall": walls}


def _used() -> float:
    """CPU seconds of all processes that this one and its children have waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


PARTS = {"start": start, "sweep": sweep, "drift": drift}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    add_only(parser, PARTS, "parts")
    add_json(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a line for each part."""
    here = introduced("what surrounds a step", arguments.threads, arguments.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "text.txt").write_text("\n\n".join(read_texts())[:CHARACTERS], encoding="utf-8")
        for name in arguments.only:
            keep(arguments.json, f"loop {name}", {"machine": here, **PARTS[name](folder, arguments.rounds)})
    return 0
