"""Every loss of the catalogue, forward and backward, beside its three matrix products alone and beside F.cross_entropy
of all logits as torch has it, at two widths; and the products by torch's own library.

One process, everything in turns. Losses of values and sequences have no vocabulary, and are named as left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

import losslab
from benchmarks.tools.options import add_json, add_only, add_rounds, add_threads, add_vocabularies
from benchmarks.tools.shape import Shape as Run
from benchmarks.tools.turns import introduced, keep, ratio, told
from losslab.conformance.measure import DENSE, FLOOR, Shape, Variant, make_work
from losslab.contracts import TargetKind
from losslab.training.factory import build_loss
from losslab.training.output.memory import keep_freed_memory

WIDTHS = (256, 768)
POSITIONS = 2048
SHARES = {
    "F1": "z_y and logsumexp",
    "F2": "and a linear sum",
    "F3": "any sum over the logits",
    "F4": "the logits in order",
    "F5": "no logits",
    "F6": "some classes",
}
BY_TORCH = "the same by MKL"


@contextmanager
def torchs_products() -> Iterator[None]:
    """Leave all products to torch."""
    before, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def catalogue(names: Collection[str]) -> dict[str, tuple[str, dict[str, Any] | None]]:
    """Loss → its cost class, and a configuration with it; None where it has no vocabulary or no teacher."""
    found: dict[str, tuple[str, dict[str, Any] | None]] = {}
    for name in names:
        config = Run(8192, loss=name).config()
        loss = build_loss(config)
        fits = loss.target_kind not in (TargetKind.VALUES, TargetKind.SEQUENCES) and loss.position_wise
        found[name] = loss.cost_class, config if fits else None
    return found


def _names() -> list[str]:
    package = Path(losslab.__file__).parent
    folder = next(path for path in (package / "conf/loss", package.parents[1] / "conf/loss") if path.is_dir())
    return sorted(path.stem for path in folder.glob("*.yaml"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    add_vocabularies(parser)
    add_only(parser, _names(), "losses")
    add_json(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a table for each width and vocabulary."""
    threads, rounds = arguments.threads, arguments.rounds
    torch.set_num_threads(threads)
    keep_freed_memory()
    here = introduced(f"heads on {POSITIONS:,} positions, forward and backward, fp32", threads, rounds)
    losses = catalogue(arguments.only)
    left_out = [name for name, (_, config) in losses.items() if config is None]
    if left_out:
        print(f"left out, for they have no vocabulary or compare positions: {', '.join(left_out)}")
    variants = {FLOOR: Variant(FLOOR), BY_TORCH: Variant(FLOOR), DENSE: Variant(DENSE)}
    variants |= {name: Variant(name, config) for name, (_, config) in losses.items() if config is not None}
    for num_outputs in arguments.vocab:
        for width in WIDTHS:
            shape = Shape(POSITIONS, width, num_outputs, threads)
            found = _measure(variants, shape, rounds)
            print(f"D = {width}, V = {num_outputs:,}")
            content = _table(found, {name: cost for name, (cost, _) in losses.items()})
            keep(arguments.json, f"heads {width} {num_outputs}", {"machine": here, "heads": content})
    return 0


def _measure(variants: dict[str, Variant], shape: Shape, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Variant → wall and CPU seconds of each round, after one that does not count."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in variants}
    for i in range(rounds):
        for name, variant in variants.items() if i % 2 == 0 else reversed(variants.items()):
            work = make_work(variant, shape)  # the inputs of all losses at once would not fit
            with torchs_products() if name in (BY_TORCH, DENSE) else nullcontext():
                work.run(shape)  # does not count
                cpu, wall = time.process_time(), work.run(shape)
                found[name][1].append(time.process_time() - cpu)
                found[name][0].append(wall)
    return found


def _table(found: dict[str, tuple[list[float], list[float]]], costs: dict[str, str]) -> dict[str, Any]:
    print(f"{'':<30}{'ms':>7}{'of the products':>22}{'in CPU time':>22}{'of dense CE':>22}")
    ordered = sorted(found, key=lambda name: (costs.get(name, ""), found[name][0]))
    result, cost = {}, ""
    for name in ordered:
        own = costs.get(name, "")
        if own != cost:
            cost = own
            print(f"{own}: {SHARES.get(own, '')}")
        wall, cpu = found[name]
        ratios = ratio(wall, found[FLOOR][0]), ratio(cpu, found[FLOOR][1]), ratio(wall, found[DENSE][0])
        print(f"{name:<30}{1e3 * statistics.median(wall):>7.0f}" + "".join(f"{told(each):>22}" for each in ratios))
        result[name] = {
            "cost_class": own, "seconds": wall, "cpu_seconds": cpu, "of_products": ratios[0],
            "of_products_in_cpu": ratios[1], "of_dense": ratios[2],
        }  # fmt: skip
    return result
