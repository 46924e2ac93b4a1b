"""Time and memory of `losslab compare`, for a sweep as people have it and for large ones."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

TINY = (
    "data.tokenizer=bytes model.num_layers=1 model.num_heads=2 model.width=16 model.context=32 trainer.max_steps=2 "
    "name=one trainer.threads=1"
).split()
LOSSES = ("cross_entropy", "focal", "kl_divergence", "square", "brier")


@dataclass(frozen=True)
class Size:
    """A made-up sweep: losses × learning rates × seeds, each with so many logged points."""

    losses: int
    rates: int
    seeds: int
    points: int

    @property
    def runs(self) -> int:
        return self.losses * self.rates * self.seeds


SIZES = [Size(3, 1, 3, 50), Size(5, 10, 20, 1000), Size(5, 1, 200, 1000)]


def make(original: Path, target: Path, size: Size) -> None:
    """Copies of one real run whose losses, rates, seeds, metrics and curves are made up."""
    record = json.loads((original / "run.json").read_text())
    config = yaml.safe_load((original / "config.yaml").read_text())
    random = np.random.default_rng(0)
    count = 0
    for loss in range(size.losses):
        for rate in range(size.rates):
            for seed in range(size.seeds):
                count += 1
                folder = target / f"{LOSSES[loss]}-seed{seed}-{count:010d}"
                folder.mkdir(parents=True)
                level = 3 + 0.01 * loss + 0.02 * (rate - 3) ** 2 + 0.1 * np.sin(seed) + 0.01 * random.standard_normal()
                _write_run(folder, record, config, name=LOSSES[loss], seed=seed, lr=1e-3 * 1.5**rate, level=level)
                _write_curves(folder, original, size.points, level, random)
                shutil.copy(original / "test_scores.npz", folder)


def _write_run(
    folder: Path, record: dict[str, Any], config: dict[str, Any], *, name: str, seed: int, lr: float, level: float
) -> None:
    best = {key: value * level / 3 for key, value in record["metrics"]["best"].items() if value is not None}
    metrics = {"best": best | {"step": 2}, "final": best}
    choices = record["provenance"]["choices"] | {"loss": name}
    own = {"identity": folder.name, "metrics": metrics, "provenance": record["provenance"] | {"choices": choices}}
    (folder / "run.json").write_text(json.dumps(record | own))
    changed = config | {"seed": seed, "optimizer": config["optimizer"] | {"lr": lr}}
    (folder / "config.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))


def _write_curves(folder: Path, original: Path, points: int, level: float, random: np.random.Generator) -> None:
    with (original / "metrics.csv").open(newline="") as file:
        header = next(csv.reader(file))
    values = level + 3 / np.sqrt(1 + np.arange(points))[:, None] + 0.01 * random.standard_normal((points, len(header)))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[i + 1, *map(repr, row[1:].tolist())] for i, row in enumerate(values)])


def measure(folder: Path) -> tuple[float, float]:
    """Wall seconds and peak MiB of the command."""
    command = [sys.executable, "-m", "losslab", "compare", str(folder)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return seconds, usage.ru_maxrss / 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing: the sizes are fixed."""


def main(_: argparse.Namespace) -> int:
    """Print a line for each size."""
    print(f"{os.cpu_count()} cores; losslab compare, files and figures included")
    print(f"{'losses':>7}{'rates':>7}{'seeds':>7}{'runs':>7}{'points':>8}{'seconds':>9}{'MiB':>7}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        subprocess.run([sys.executable, "-m", "losslab", "train", *TINY], cwd=root, check=True, capture_output=True)
        (original,) = (path.parent for path in root.glob("outputs/one/*/run.json"))
        for size in SIZES:
            folder = root / f"{size.runs}-{size.rates}"
            make(original, folder, size)
            seconds, peak = measure(folder)
            shape = f"{size.losses:>7}{size.rates:>7}{size.seeds:>7}{size.runs:>7}{size.points:>8}"
            print(f"{shape}{seconds:>9.1f}{peak:>7.0f}", flush=True)
    return 0
