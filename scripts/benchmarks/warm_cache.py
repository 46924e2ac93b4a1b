"""The start of a run on a text whose tokens are cached, beside that on 1 MB.

Each text is trained on once for the cache, and then in turns for one step; the median of the rounds counts. The first
step is `timing.first_step` of the record: seconds from the start of the run's session. The command's wall time holds
the check of all arguments before it, and the scores of a few tokens after it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.tools.options import add_rounds, positive

SMALL = 1
DEFAULT = 50
"""Megabytes; the issue's promise is about 1,000."""
MOST_DIFFERENCE = 1.0
"""Seconds by which a large text may start later."""
_WORDS = 5000
_LONGEST = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--megabytes", type=positive, default=DEFAULT, metavar="N", help="of the large text (default: %(default)s)"
    )
    add_rounds(parser, "in turns; the median counts")


def main(arguments: argparse.Namespace) -> int:
    """Print both starts and their differences; 1 where the first step comes more than a second later."""
    megabytes, rounds = arguments.megabytes, arguments.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = (SMALL, megabytes)
        for size in sizes:
            write_text(folder / f"{size}.txt", size)
        for size in sizes:
            began = time.monotonic()
            train(folder, size, seed=0)
            print(f"{size:>6,} MB, nothing cached: {time.monotonic() - began:.1f} s", flush=True)
        time.sleep(3)  # a file must have lain for two seconds before its hash is kept
        for size in sizes:
            train(folder, size, seed=1)
        found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
        for seed in range(2, 2 + rounds):
            for size in sizes:
                began = time.monotonic()
                first_step = train(folder, size, seed=seed)
                found[size].append((first_step, time.monotonic() - began))
    medians = {
        size: [statistics.median(column) for column in zip(*times, strict=True)] for size, times in found.items()
    }
    for size, (first_step, wall) in medians.items():
        print(f"{size:>6,} MB, cached: first step after {first_step:.2f} s, the whole command {wall:.2f} s")
    later, longer = (b - a for a, b in zip(medians[SMALL], medians[megabytes], strict=True))
    print(f"the first step comes {later:+.2f} s later, and the command takes {longer:+.2f} s longer")
    return int(later > MOST_DIFFERENCE or longer > MOST_DIFFERENCE)


def train(folder: Path, size: int, *, seed: int) -> float:
    """One step of a tiny model; returns the seconds to it."""
    command = [
        *(sys.executable, "-m", "losslab", "train", "data=text", f"data.path={size}.txt", "data.tokenizer=bytes"),
        *("model/size=nano", "trainer.max_steps=1", "data.max_eval_tokens=4096", f"seed={seed}", f"name=of_{size}"),
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (record,) = (json.loads(path.read_text()) for path in folder.glob(f"outputs/of_{size}/*-seed{seed}-*/run.json"))
    seconds: float = record["timing"]["first_step"]
    return seconds


def write_text(path: Path, megabytes: int) -> None:
    """Paragraphs of made-up words, each another one."""
    with path.open("w") as file:
        for paragraph in _paragraphs(random.Random(megabytes), megabytes * 10**6):
            file.write(paragraph)


def _paragraphs(source: random.Random, size: int) -> Iterator[str]:
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(source.choices(letters, k=source.randint(1, _LONGEST))) for _ in range(_WORDS)]
    written = 0
    while written < size:
        paragraph = " ".join(source.choices(words, k=source.randint(50, 250))) + ".\n\n"
        written += len(paragraph)
        yield paragraph
