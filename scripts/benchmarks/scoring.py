"""The time of a validation's scores, as a multiple of the forward product alone.

One process, freed memory kept as in training, all kinds in turns, the order turned round after each round. A ratio is
the median of those of the rounds, with the smallest and the largest beside it. The product is made in the chunks in
which scoring makes it.

A validation fits the temperature on a part of its positions and scores all of them. The two are measured apart and
added up: a thorough one fits on up to half of them, an interim one on an eighth, or, where it scores the fewest that it
may, on a quarter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.tools.options import add_json, add_rounds, add_threads
from benchmarks.tools.turns import introduced, keep
from losslab.contracts import Features, OutputSpec
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.entmax import Entmax
from losslab.losses.focal import Focal
from losslab.losses.square import Square
from losslab.metrics.class_metrics import ClassMetrics, scoring_rows
from losslab.metrics.extended import Details
from losslab.metrics.temperature import Temperature
from losslab.models.projection import OutputProjection
from losslab.training.output.memory import keep_freed_memory

POSITIONS, FITTED = 2048, 1024
IDEAL, SCALE = 1.3, 1.1
"""The scale of the distribution that targets are drawn from, and the one that predictions are scored with."""
RUN = 64
"""Positions of a document: of every other one all belong to the fitting half."""
LOSSES: dict[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "label smoothing 0.1": lambda: CrossEntropy(label_smoothing=0.1),
    "focal": Focal,
    "brier": Brier,
    "square": Square,
    "entmax": Entmax,
}
MAIN = ("cross_entropy", "square")
SHAPES = (
    (64, 8192, tuple(LOSSES)),
    (256, 8192, MAIN),
    (768, 8192, MAIN),
    (256, 50304, tuple(LOSSES)),
    (768, 50304, MAIN),
)
"""D, V, and which losses."""
FIT_SHARES = {"interim": 1 / 8, "fewest": 1 / 4, "thorough": 1 / 2}
"""Positions to fit on, as a share of those to score."""
Seconds = dict[str, list[float]]
"""Kind → seconds a position, in every round."""


def draw(width: int, num_outputs: int) -> tuple[Features, OutputProjection]:
    """Positions whose targets follow the softmax of scaled logits."""
    generator = torch.Generator().manual_seed(0)
    projection = OutputProjection(2 * torch.randn(num_outputs, width, generator=generator) / width**0.5)
    hidden = torch.randn(POSITIONS, width, generator=generator)
    target = torch.cat(
        [
            torch.multinomial((IDEAL * projection(part)).softmax(dim=-1), 1, generator=generator)[:, 0]
            for part in hidden.split(128)
        ]
    )
    extras = {"bytes": torch.ones(POSITIONS), "fit": (torch.arange(POSITIONS) // RUN % 2).float()}
    return Features(hidden, target, torch.ones(POSITIONS), extras), projection


def kinds_of(loss: Loss, features: Features, projection: OutputProjection) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Work that is timed, with the number of its positions."""
    num_outputs = len(projection.weight)
    groups, rows = torch.arange(num_outputs) % 5, scoring_rows(num_outputs)

    def multiply() -> None:
        for chunk in features.chunks(rows):
            projection(chunk.hidden)

    def score(details: Details | None) -> None:
        ClassMetrics(SCALE, held_out=True, details=details).update(features, loss, projection)

    def fit() -> None:
        calibrator = Temperature()
        calibrator.update(features, loss, projection)
        calibrator.finish(loss, projection)
        loss.calibrate(SCALE)

    return {
        "product": (POSITIONS, multiply),
        "score interim": (POSITIONS, lambda: score(None)),
        "score thorough": (POSITIONS, lambda: score(Details(groups=groups))),
        "fit": (FITTED, fit),
    }


def measure(kinds: Mapping[str, tuple[int, Callable[[], Any]]], rounds: int) -> tuple[Seconds, Seconds]:
    """Wall and CPU seconds a position of each kind, after one round that does not count."""
    wall: Seconds = {name: [] for name in kinds}
    cpu: Seconds = {name: [] for name in kinds}
    for i in range(rounds + 1):
        for name in kinds if i % 2 else reversed(kinds):
            positions, run = kinds[name]
            began = time.perf_counter(), time.process_time()
            run()
            if i:
                wall[name].append((time.perf_counter() - began[0]) / positions)
                cpu[name].append((time.process_time() - began[1]) / positions)
    return wall, cpu


def ratios_of(seconds: Seconds) -> dict[str, list[float]]:
    """Each kind, and each whole validation, in products of as many positions; of every round."""
    product = seconds["product"]
    found = {name: _over(values, product) for name, values in seconds.items() if name != "product"}
    for name, share in FIT_SHARES.items():
        scored = found["score thorough" if name == "thorough" else "score interim"]
        found[name] = [a + share * b for a, b in zip(scored, found["fit"], strict=True)]
    return found


def _over(values: Sequence[float], product: Sequence[float]) -> list[float]:
    return [value / one for value, one in zip(values, product, strict=True)]


def told(wall: Sequence[float], cpu: Sequence[float]) -> str:
    """The median of a ratio with its spread, and that of CPU time."""
    spread = f"[{min(wall):.2f}, {max(wall):.2f}]"
    return f"{statistics.median(wall):>7.2f} {spread:<12} {statistics.median(cpu):>5.2f}"


@torch.no_grad()
def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    add_json(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a line for each shape and loss."""
    threads, rounds = arguments.threads, arguments.rounds
    torch.set_num_threads(threads)
    keep_freed_memory()
    here = introduced(f"Scores of {POSITIONS:,} positions.", threads, rounds)
    print("product: ms a position, hidden states times projection. All else in products of as many positions: the")
    print("median of wall time [smallest, largest of the rounds] and the median of CPU time")
    print("score: the scores alone, product included | fit: the temperature, a position that it is fitted on")
    print("validation: scores and fit, of an interim one, of the shortest interim one, and of a thorough one")
    names = ("score interim", "score thorough", "fit", *FIT_SHARES)
    print(f"{'D':>4}{'V':>7}  {'loss':<20}{'product':>8}" + "".join(f"{name:>27}" for name in names), flush=True)
    figures: list[dict[str, Any]] = []
    for width, num_outputs, losses in SHAPES:
        features, projection = draw(width, num_outputs)
        for name in losses:
            loss = LOSSES[name]()
            loss.bind(OutputSpec(num_outputs, width, torch.Generator().manual_seed(0)))
            loss.calibrate(SCALE)
            seconds = measure(kinds_of(loss, features, projection), rounds)
            wall, cpu = (ratios_of(part) for part in seconds)
            product = statistics.median(seconds[0]["product"])
            row = "".join(f"{told(wall[kind], cpu[kind]):>27}" for kind in names)
            print(f"{width:>4}{num_outputs:>7}  {name:<20}{product * 1e3:>8.3f}{row}", flush=True)
            figures.append({"D": width, "V": num_outputs, "loss": name, "product_s": product, "wall": wall, "cpu": cpu})
    keep(arguments.json, "scoring", {"machine": here, "rounds": rounds, "figures": figures})
    return 0
