"""Everything that surrounds a step. A callback of the runs writes wall and CPU time of their process.

start   from the start of the command to the end of the first optimizer step, on a text that is tokenised already, over
        `python -c "import lightning"`, in turns
beside  a run whose threads wait asleep for each other, as losslab's do, over one whose threads spin as long as those of
        libgomp do by themselves, in turns: beside a process that keeps a core busy, and alone
sweep   the share of all cores' time that nine runs compute, from the start of the command to its end; time that other
        programs take is left out
drift   seconds a step at the end of a run of 5,000 small steps over those at its beginning
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.tools.busy import Busy, watched
from benchmarks.tools.options import add_json, add_only, add_rounds, add_threads
from benchmarks.tools.turns import introduced, keep, ratio, told
from losslab.data.python_docs import read_texts

CHARACTERS = 400_000
LONG, WINDOW, FIRST = 5000, 500, 100
"""Steps of the run whose speed may drift, those of its first and last part, and the step at which the first begins."""
SLOW, SPIN = 150, "300000"
"""Steps of a run beside a busy process, and the turns for which libgomp spins where nobody says anything."""
MOST_START, LEAST_BUSY, MOST_DRIFT = 1.5, 0.92, 0.05
RUN = [
    "data=text",
    "data.path=text.txt",
    "data.vocab_size=2048",
    "model/size=nano",
    "trainer.enable_progress_bar=false",
    "+callbacks.clock._target_=clock.Clock",
]
IMPORT = "import lightning, os, time; print(time.time(), sum(os.times()[:4]))"
"""The end of an interpreter is no part of it, as it is none of a first step."""
CLOCK = """\
import os, time
from pathlib import Path
from lightning.pytorch import Callback


class Clock(Callback):
    observes_only = True

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = trainer.global_step
        if step == 1 or step % 50 == 0:
            with Path(trainer.default_root_dir, "clock.txt").open("a") as file:
                file.write(f"{step} {time.time()} {sum(os.times()[:4])}\\n")
"""


class Time(NamedTuple):
    """Seconds: by the clock, and of all cores."""

    wall: float
    cpu: float


def train(folder: Path, *words: str, **variables: str) -> None:
    command = [sys.executable, "-m", "losslab", "train", *RUN, *words]
    environment = os.environ | variables
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)


def clock(sweep: Path) -> dict[int, Time]:
    """Optimizer step → the time at its end, of the one run of a sweep: since 1970, and since its process began."""
    (path,) = sweep.glob("*/clock.txt")
    rows = [line.split() for line in path.read_text().splitlines()]
    return {int(step): Time(float(wall), float(cpu)) for step, wall, cpu in rows}


def both(above: list[Time], below: list[Time]) -> dict[str, tuple[float, float, float]]:
    """Ratios of wall and of CPU times."""
    return {name: ratio([one[k] for one in above], [one[k] for one in below]) for k, name in enumerate(Time._fields)}


def line(
    name: str, what: str, found: dict[str, tuple[float, float, float]], rest: str, met: bool | None = None
) -> None:
    verdict = "" if met is None else "; met" if met else "; not met"
    print(f"{name}: {what}: {told(found['wall'])} (CPU time {told(found['cpu'])}); {rest}{verdict}", flush=True)


def medians(times: list[Time], scale: float = 1) -> str:
    return " and ".join(f"{scale * statistics.median(one[k] for one in times):.2f}" for k in (0, 1))


def start(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    def first_step(name: str) -> Time:
        began = time.time()
        train(folder, "trainer.max_steps=2", f"trainer.threads={threads}", f"name={name}")
        wall, cpu = clock(folder / "outputs" / name)[1]
        return Time(wall - began, cpu)

    def lightning() -> Time:
        began = time.time()
        words = [sys.executable, "-c", IMPORT]
        wall, cpu = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        return Time(float(wall) - began, float(cpu))

    first_step("warm"), lightning()
    ours, imports = [], []
    for i in range(rounds):
        if i % 2:
            imports.append(lightning())
        ours.append(first_step(f"start-{i}"))
        if not i % 2:
            imports.append(lightning())
    found = both(ours, imports)
    rest = f"{medians(ours)} s, import {medians(imports)} s; goal ≤ {MOST_START}"
    line("start", "command to first step over `import lightning`", found, rest, found["wall"][0] <= MOST_START)
    return {"over_import": found, "first_step": ours, "import": imports, "goal": MOST_START}


def beside(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    def run(name: str, **variables: str) -> Time:
        train(folder, f"trainer.max_steps={SLOW}", f"trainer.threads={threads}", f"name={name}", **variables)
        times = clock(folder / "outputs" / name)
        return Time(*(times[SLOW][k] - times[1][k] for k in (0, 1)))

    kept: dict[str, Any] = {}
    for where in ("busy", "alone"):
        found: dict[str, list[Time]] = {"asleep": [], "spinning": []}
        for i in range(rounds):
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if where == "busy" else None
            try:
                for way in ("asleep", "spinning") if i % 2 == 0 else ("spinning", "asleep"):
                    variables = {"GOMP_SPINCOUNT": SPIN} if way == "spinning" else {}
                    found[way].append(run(f"{where}-{way}-{i}", **variables))
            finally:
                if other is not None:
                    other.kill()
                    other.wait()
        ratios = both(found["asleep"], found["spinning"])
        what = "beside a busy process" if where == "busy" else "alone"
        ours, theirs = (medians(times, 1e3 / (SLOW - 1)) for times in found.values())
        rest = f"{ours} ms a step instead of {theirs}"
        line("beside", f"waiting asleep over spinning, {what}", ratios, rest)
        kept[where] = {"over_spinning": ratios, **found}
    return kept


def sweep(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    del threads  # the launcher shares them out
    losses = "loss=cross_entropy,kl_divergence,square"
    words = ["-m", losses, "seed=1,2,3", "trainer.max_steps=300", "trainer.val_check_interval=300"]
    found: list[Busy] = []
    for i in range(rounds):
        command = [sys.executable, "-m", "losslab", "train", *RUN, *words, f"name=sweep-{i}"]
        found.append(watched(command, folder, folder / "outputs" / f"sweep-{i}"))
        print(f"sweep: {found[-1]}", flush=True)
    share = statistics.median(one.share for one in found)
    verdict = "met" if share >= LEAST_BUSY else "not met"
    if any(one.is_disturbed for one in found):
        verdict = "other programs computed, too: idle time goes to them; run it on an idle machine"
    print(
        f"sweep: nine runs computed for {share:.1%} of the time that other programs left; goal ≥ {LEAST_BUSY:.0%}; "
        f"{verdict}",
        flush=True,
    )
    return {"busy": share, "rounds": [one._asdict() for one in found], "goal": LEAST_BUSY}


def drift(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    early, late = [], []
    for i in range(rounds):
        words = f"trainer.max_steps={LONG}", f"trainer.val_check_interval={LONG}", f"trainer.threads={threads}"
        train(folder, *words, f"name=drift-{i}")
        times = clock(folder / "outputs" / f"drift-{i}")
        last = LONG - 50  # a validation comes after the last step
        for parts, begin, end in ((early, FIRST, FIRST + WINDOW), (late, last - WINDOW, last)):
            parts.append(Time(*((times[end][k] - times[begin][k]) / WINDOW for k in (0, 1))))
    found = both(late, early)
    rest = f"{medians(late, 1e3)} ms a step; goal within {MOST_DRIFT:.0%} of 1"
    what = f"time of steps {last - WINDOW:,} to {last:,} over that of {FIRST} to {FIRST + WINDOW}"
    line("drift", what, found, rest, abs(found["wall"][0] - 1) <= MOST_DRIFT)
    return {"late_over_early": found, "early": early, "late": late, "goal": MOST_DRIFT}


PARTS = {"start": start, "beside": beside, "sweep": sweep, "drift": drift}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    add_only(parser, PARTS, "parts")
    add_json(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a line or two for each part, of wall time, and of CPU time in parentheses."""
    here = introduced("what surrounds a step", arguments.threads, arguments.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "text.txt").write_text("\n\n".join(read_texts())[:CHARACTERS], encoding="utf-8")
        (folder / "clock.py").write_text(CLOCK)
        for name in arguments.only:
            found = PARTS[name](folder, arguments.rounds, arguments.threads)
            keep(arguments.json, f"loop {name}", {"machine": here, **found})
    return 0
