"""Run by scripts/benchmark scoring: the time to score positions, as a multiple of the forward product alone.

One thread, freed memory kept as in training, all in one process and in turns; the smallest of the rounds counts. The
product is made in the chunks in which scoring makes it: all at once it costs more, for memory that is new each time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from losslab.contracts import Features
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.focal import Focal
from losslab.losses.square import Square
from losslab.metrics.class_metrics import ClassMetrics, scoring_rows
from losslab.metrics.extended import Details
from losslab.metrics.scale import fit_scale
from losslab.models.projection import OutputProjection
from losslab.training.output.memory import keep_freed_memory

POSITIONS, FITTED = 8192, 1024
LOSSES: dict[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "label smoothing 0.1": lambda: CrossEntropy(label_smoothing=0.1),
    "focal": Focal,
    "brier": Brier,
    "square": Square,
}
SHAPES = ((64, 8192, tuple(LOSSES)), (256, 50304, ("cross_entropy",)))
"""D, V, and which losses."""
SCALE = 1.1


def seconds(run: Callable[[], object]) -> float:
    """The processor's, so that other processes cost less."""
    started = time.process_time()
    run()
    return time.process_time() - started


def draw(width: int, num_outputs: int) -> tuple[Features, OutputProjection]:
    generator = torch.Generator().manual_seed(0)
    extras = {"bytes": torch.ones(POSITIONS), "fit": (torch.arange(POSITIONS) % 2).float()}
    features = Features(
        torch.randn(POSITIONS, width, generator=generator),
        torch.randint(num_outputs, (POSITIONS,), generator=generator),
        torch.ones(POSITIONS),
        extras,
    )
    weight = torch.randn(num_outputs, width, generator=generator) / width**0.5
    return features, OutputProjection(weight)


def scoring(loss: Loss, features: Features, projection: OutputProjection) -> dict[str, Callable[[], object]]:
    """One timed case."""
    num_outputs = len(projection.weight)
    groups = torch.arange(num_outputs) % 5
    rows = scoring_rows(num_outputs)
    pieces = features[:FITTED].chunks(rows)

    def multiply() -> None:
        for chunk in features.chunks(rows):
            projection(chunk.hidden)

    def score(details: Details | None) -> None:
        ClassMetrics(SCALE, held_out=True, details=details).update(features, loss, projection)

    return {
        "product": multiply,
        "at once": lambda: projection(features.hidden),
        "interim": lambda: score(None),
        "thorough": lambda: score(Details(groups=groups)),
        "fit": lambda: fit_scale(pieces, loss, projection, most=1),
    }


@torch.no_grad()
def main(rounds: int) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    print(
        f"scoring {POSITIONS:,} positions, one thread, {rounds} round(s), of which the quickest counts; ms a position"
    )
    print("product: hidden states times projection, in the chunks of scoring | at once: without chunks, in new memory")
    print(
        "interim, thorough: a validation's scores, product included, and how many products that is | how many at once"
    )
    print("fit: one step of the temperature's fit, if on as many positions, in products")
    columns = f"{'product':>9} |{'at once':>8}{'interim':>24}{'thorough':>24}{'fit':>9}"
    print(f"{'D':>4}{'V':>7}  {'loss':<20}{columns}", flush=True)
    for width, num_outputs, names in SHAPES:
        features, projection = draw(width, num_outputs)
        for name in names:
            loss = LOSSES[name]()
            loss.calibrate(SCALE)
            runs = scoring(loss, features, projection)
            best = dict.fromkeys(runs, math.inf)
            for _ in range(rounds):
                best = {kind: min(best[kind], seconds(run)) for kind, run in runs.items()}
            product, at_once = best["product"], best["at once"]
            row = f"{product / POSITIONS * 1e3:>9.3f} |{at_once / POSITIONS * 1e3:>8.3f}"
            for kind in ("interim", "thorough"):
                cost = best[kind]
                row += f"{cost / POSITIONS * 1e3:>10.3f} {cost / product:>5.2f} |{cost / at_once:>5.2f} x"
            fit = best["fit"] * POSITIONS / FITTED / product
            print(f"{width:>4}{num_outputs:>7}  {name:<20}{row}{fit:>7.2f} x", flush=True)
