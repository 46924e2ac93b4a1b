"""Seconds against sizes, each in turns, and the exponent that fits: seconds ~ size^exponent.

tokens, vocabulary, width, length   a training step: forward, backward, optimizer
sweep                               losslab train -m of N short runs, from the start of the command to its end
compare                             losslab compare of N made-up runs, report and figures included

The interval of an exponent is that of the regression over the sizes (95%, t): of a law that is not a power, too. Beside
it stands the exponent of the floating-point operations, which seconds would have if every operation took as long. The
deviations are the seconds over the fitted ones.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from benchmarks.scaling_runs import Comparisons, Sweeps
from benchmarks.tools.options import add_json, add_only, add_rounds, add_threads, writable
from benchmarks.tools.shape import Shape
from benchmarks.tools.turns import introduced, keep
from losslab.contracts import Batch
from losslab.training.factory import build_network
from losslab.training.optimizers import make_optimizer
from losslab.training.output.memory import keep_freed_memory

SMALL = Shape(8192, layers=2, heads=4, width=128, context=128, batch_size=8)
STEPS = {
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
RUNS = {"sweep": (Sweeps, (2, 4, 8, 16)), "compare": (Comparisons, (8, 32, 128, 512))}
"""Axis → what makes and times a command, and the numbers of runs."""
LEAST = 0.3
"""Seconds that are timed at least, in whole steps."""


class Axis(NamedTuple):
    """Measurements along an axis, by size."""

    name: str
    sizes: list[int]
    wall: list[list[float]]
    """Seconds, of each size in every round."""
    cpu: list[list[float]]
    operations: list[float] | None
    """Floating-point operations of a step."""


class Fit(NamedTuple):
    exponent: float
    low: float
    high: float
    deviations: list[float]
    """Each value over the fitted one."""
    level: float
    """The fitted value at size 1."""

    def __str__(self) -> str:
        return f"{self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}]"


def fit(sizes: list[int], values: list[float]) -> Fit:
    """The exponent of a power law by least squares of logarithms, and its 95% interval."""
    x, y = np.log(sizes), np.log(values)
    line = stats.linregress(x, y)
    margin = float(stats.t.ppf(0.975, len(sizes) - 2) * line.stderr)
    slope, level = float(line.slope), float(line.intercept)
    deviations = [float(deviation) for deviation in np.exp(y - slope * x - level)]
    return Fit(slope, slope - margin, slope + margin, deviations, math.exp(level))


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


def steps_along(name: str, rounds: int) -> Axis:
    shapes = STEPS[name]
    found: dict[Shape, list[tuple[float, float]]] = {shape: [] for shape in shapes}
    operations: dict[Shape, float] = {}
    for i in range(rounds):
        for shape in shapes if i % 2 == 0 else reversed(shapes):
            step, operations[shape] = step_of(shape)
            found[shape].append(seconds(step))
    wall, cpu = ([[each[k] for each in times] for times in found.values()] for k in (0, 1))
    return Axis(name, [SIZE[name](shape) for shape in shapes], wall, cpu, [operations[shape] for shape in shapes])


def runs_along(name: str, rounds: int) -> Axis:
    kind, sizes = RUNS[name]
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as temporary:
        command = kind(Path(temporary), sizes)
        for i in range(rounds):
            for size in sizes if i % 2 == 0 else reversed(sizes):
                found[size].append(command.seconds(size))
    wall, cpu = ([[each[k] for each in times] for times in found.values()] for k in (0, 1))
    return Axis(name, list(sizes), wall, cpu, None)


def table(axis: Axis) -> dict[str, Any]:
    """Print an axis; returns what to keep of it."""
    wall, cpu = ([statistics.median(times) for times in each] for each in (axis.wall, axis.cpu))
    by_wall, by_cpu = fit(axis.sizes, wall), fit(axis.sizes, cpu)
    operations = "" if axis.operations is None else f"; operations {fit(axis.sizes, axis.operations).exponent:.2f}"
    print(f"{axis.name}: exponent {by_wall} (CPU time {by_cpu}{operations})")
    rate = "" if axis.operations is None else f"{'GFLOP/s':>9}"
    print(f"{axis.name:>12}{'ms':>10}{'CPU ms':>10}{'max/min':>9}{rate}{'of the fit':>12}{'exponent to the next':>22}")
    for i, size in enumerate(axis.sizes):
        rate = "" if axis.operations is None else f"{axis.operations[i] / wall[i] / 1e9:>9.0f}"
        after = ""
        if i + 1 < len(wall):
            after = f"{math.log(wall[i + 1] / wall[i]) / math.log(axis.sizes[i + 1] / size):.2f}"
        spread = max(axis.wall[i]) / min(axis.wall[i])
        print(
            f"{size:>12,}{1e3 * wall[i]:>10.1f}{1e3 * cpu[i]:>10.1f}{spread:>9.2f}{rate}"
            f"{by_wall.deviations[i]:>12.2f}{after:>22}",
            flush=True,
        )
    return {**axis._asdict(), "exponent": by_wall._asdict(), "exponent_of_cpu_time": by_cpu._asdict()}


def plot(axes: list[Axis], path: Path) -> None:
    """Draw a panel for each axis: seconds in every round, the fitted law, and the operations at the rate of the largest
    size."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    columns = min(3, len(axes))
    lines = -(-len(axes) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines), layout="constrained")
    for place, axis in enumerate(axes, start=1):
        panel = figure.add_subplot(lines, columns, place)
        medians = [statistics.median(times) for times in axis.wall]
        law, sizes = fit(axis.sizes, medians), np.array(axis.sizes)
        for size, times in zip(axis.sizes, axis.wall, strict=True):
            panel.plot([size] * len(times), times, "o", color="C0", alpha=0.6, markersize=4)
        panel.plot(sizes, law.level * sizes**law.exponent, "-", color="C0", label=f"exponent {law}")
        if axis.operations is not None:
            scaled = np.array(axis.operations) * medians[-1] / axis.operations[-1]
            told = f"operations, {fit(axis.sizes, axis.operations).exponent:.2f}"
            panel.plot(sizes, scaled, "--", color="0.5", label=told)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(axis.sizes, [f"{size:,}" for size in axis.sizes])
        panel.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.set_xlabel("runs" if axis.name in RUNS else axis.name)
        panel.set_ylabel("seconds of the command" if axis.name in RUNS else "seconds a step")
        panel.set_title(f"losslab {axis.name}" if axis.name in RUNS else axis.name, fontsize=10)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    add_only(parser, (*STEPS, *RUNS), "axes")
    add_json(parser)
    parser.add_argument("--plot", type=writable, metavar="FILE.png", help="a picture of what was measured")


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main(arguments: argparse.Namespace) -> int:
    """Print a table for each axis."""
    keep_freed_memory()
    here = introduced(
        f"a training step: decoder of {SMALL.layers} layers, width {SMALL.width}, context {SMALL.context}, "
        f"{SMALL.vocab_size:,} outputs, batch {SMALL.batch_size}, unless varied; fp32",
        arguments.threads,
        arguments.rounds,
    )
    axes = []
    with _threads(arguments.threads):
        for name in arguments.only:
            axes.append((runs_along if name in RUNS else steps_along)(name, arguments.rounds))
            keep(arguments.json, f"scaling {name}", {"machine": here, **table(axes[-1])})
    if arguments.plot is not None:
        plot(axes, arguments.plot)
        print(f"wrote {arguments.plot}")
    return 0
