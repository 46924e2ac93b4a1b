"""Seconds of a training step (forward, backward, optimizer) against tokens, vocabulary, width and length, each in
turns, and the exponent that fits: seconds ~ size^exponent.

Beside it stands the exponent of the floating-point operations, which seconds would have if every operation took as
long; the deviations are the seconds over the fitted ones.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from benchmark_options import add_json, add_only, add_rounds, add_threads
from benchmark_shape import Shape
from benchmark_turns import introduced, keep

from losslab.contracts import Batch
from losslab.training.factory import build_network
from losslab.training.optimizers import make_optimizer
from losslab.training.output.memory import keep_freed_memory

SMALL = Shape(8192, layers=2, heads=4, width=128, context=128, batch_size=8)
AXES = {
    "tokens": [replace(SMALL, batch_size=size) for size in (2, 4, 8, 16, 32)],
    "vocabulary": [replace(SMALL, batch_size=4, vocab_size=size) for size in (1024, 4096, 16384, 65536, 262144)],
    "width": [replace(SMALL, width=size, heads=size // 32) for size in (64, 128, 256, 512)],
    "length": [replace(SMALL, context=size, batch_size=4096 // size) for size in (64, 256, 1024, 4096)],
}
"""Axis → the shapes; those of `length` have 4,096 tokens each."""
SIZE: dict[str, Callable[[Shape], int]] = {
    "tokens": lambda shape: shape.positions,
    "vocabulary": lambda shape: shape.vocab_size,
    "width": lambda shape: shape.width,
    "length": lambda shape: shape.context,
}
LEAST = 0.3
"""Seconds that are timed at least, in whole steps."""


def step_of(shape: Shape) -> tuple[Callable[[], None], int]:
    """A training step, and its floating-point operations."""
    config = shape.config()
    network = build_network(config, shape.info())
    optimizer = make_optimizer(config["optimizer"], network, fuse=True)
    tokens, target = shape.tokens()[0]
    batch = Batch({"tokens": tokens}, target, torch.ones(tokens.shape), {})

    def step() -> None:
        (network(batch).total / shape.positions).backward()
        optimizer.step()
        optimizer.zero_grad()

    per_position = network.flops_per_position(shape.info())
    return step, int((per_position or 0) * shape.positions)


def seconds(step: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds of a step, after one that does not count."""
    step()
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while count == 0 or time.perf_counter() - wall < LEAST:
        step()
        count += 1
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def fit(sizes: list[int], values: list[float]) -> tuple[float, list[float]]:
    """The exponent, and each value over the fitted one."""
    x, y = np.log(sizes), np.log(values)
    slope, level = np.polyfit(x, y, 1)
    return float(slope), [float(deviation) for deviation in np.exp(y - slope * x - level)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    add_only(parser, AXES, "axes")
    add_json(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a table for each axis."""
    threads, rounds = arguments.threads, arguments.rounds
    torch.set_num_threads(threads)
    keep_freed_memory()
    here = introduced(
        f"a training step: decoder of {SMALL.layers} layers, width {SMALL.width}, context {SMALL.context}, "
        f"{SMALL.vocab_size:,} outputs, batch {SMALL.batch_size}, unless varied; fp32",
        threads,
        rounds,
    )
    for axis in arguments.only:
        shapes = AXES[axis]
        found: dict[Shape, list[tuple[float, float]]] = {shape: [] for shape in shapes}
        flops: dict[Shape, int] = {}
        for i in range(rounds):
            for shape in shapes if i % 2 == 0 else reversed(shapes):
                step, flops[shape] = step_of(shape)
                found[shape].append(seconds(step))
        keep(arguments.json, f"scaling {axis}", {"machine": here, "rows": _table(axis, found, flops)})
    return 0


def _table(axis: str, found: dict[Shape, list[tuple[float, float]]], flops: dict[Shape, int]) -> list[dict[str, Any]]:
    sizes = [SIZE[axis](shape) for shape in found]
    wall, cpu = ([statistics.median(each[k] for each in rounds) for rounds in found.values()] for k in (0, 1))
    spread = [max(each[0] for each in rounds) / min(each[0] for each in rounds) for rounds in found.values()]
    by_wall, deviations = fit(sizes, wall)
    by_cpu, _ = fit(sizes, cpu)
    by_flops, _ = fit(sizes, [float(flops[shape]) for shape in found])
    steps = [math.log(b / a) / math.log(m / n) for a, b, n, m in zip(wall, wall[1:], sizes, sizes[1:], strict=False)]
    print(f"{axis}: exponent {by_wall:.2f} (CPU time {by_cpu:.2f}; operations {by_flops:.2f})")
    print(f"{axis:>12}{'ms':>9}{'CPU ms':>9}{'max/min':>9}{'GFLOP/s':>9}{'of the fit':>12}{'exponent to the next':>22}")
    rows = []
    for i, shape in enumerate(found):
        rate = flops[shape] / wall[i] / 1e9
        after = f"{steps[i]:.2f}" if i < len(steps) else ""
        print(
            f"{sizes[i]:>12,}{1e3 * wall[i]:>9.1f}{1e3 * cpu[i]:>9.1f}{spread[i]:>9.2f}{rate:>9.0f}"
            f"{deviations[i]:>12.2f}{after:>22}",
            flush=True,
        )
        rows.append({axis: sizes[i], "seconds": wall[i], "cpu_seconds": cpu[i], "gflops": rate, "exponent": by_wall})
    return rows
