"""Rows a second in steps of rows of similar length (data.batch_tokens) beside steps of as many rows at random, and the
share of padding in both: forward and backward passes of one network, in turns, in one process."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.tools.options import add_rounds
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.conformance.samples import prepared
from losslab.contracts import DataModule, Share
from losslab.training.factory import build_data, build_network, build_task
from losslab.training.network import Network

SIZES = ["model.num_layers=2", "model.num_heads=4", "model.width=128", "model.context=128"]
MODEL = ["task=classification", "model=encoder", *SIZES, "loggers=none"]
BUILT_IN = ["data=python_packages", "data.batch_size=1024", "data.batch_tokens=4096"]
STEPS = 6


def make(words: list[str], cache: Path) -> tuple[DataModule, Network]:
    config = check_run(compose_job([*MODEL, *words])[0])
    data = prepared(build_data(config), config, build_task(config), cache)
    return data, build_network(config, data.info)


def measure(data: DataModule, network: Network, first: int) -> tuple[float, float]:
    """Rows a second over STEPS steps, batches made beforehand, and their share of padding."""
    batches = [data.train_batch(first + step, Share()) for step in range(STEPS)]
    started = time.perf_counter()
    for batch in batches:
        network(batch).total.backward()
    seconds = time.perf_counter() - started
    masks = [batch.inputs["mask"] for batch in batches]
    real, all_of_them = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
    return sum(len(batch.weight) for batch in batches) / seconds, 1 - real / all_of_them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    parser.add_argument(
        "--data", nargs="+", default=BUILT_IN, metavar="KEY=VALUE",
        help="the data, in words of losslab train, with data.batch_size and data.batch_tokens "
        "(default: the built-in table)",
    )  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Print the ratio."""
    words, rounds = arguments.data, arguments.rounds
    torch.set_num_threads(1)  # threads wait for one another on a machine that does other things
    with tempfile.TemporaryDirectory() as cache:
        bucketed, network = make(words, Path(cache))
        size = round(bucketed.samples_per_step)
        plain, _ = make([*words, f"data.batch_size={size}", "data.batch_tokens=null"], Path(cache))
        measure(plain, network, 0)
        found: dict[str, list[tuple[float, float]]] = {"at random": [], "by length": []}
        for i in range(rounds):
            for name, data in (("at random", plain), ("by length", bucketed))[:: 1 if i % 2 else -1]:
                found[name].append(measure(data, network, i * STEPS))
    print(f"{' '.join(words)}: {rounds} round(s) of {STEPS} steps of {size} rows on average, 1 thread")
    for name, values in found.items():
        speeds, shares = zip(*values, strict=True)
        print(f"{name:<10}{statistics.median(speeds):>10,.0f} rows/s{statistics.mean(shares):>8.1%} padding")
    ratios = [b[0] / a[0] for a, b in zip(found["at random"], found["by length"], strict=True)]
    print(f"by length / at random: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0
