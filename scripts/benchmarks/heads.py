"""Every loss of the catalogue, forward and backward, beside its three matrix products alone and beside F.cross_entropy
of all logits as torch has it, at two widths. Ratios are to the quickest way to make the products: in the head's chunks
or of all positions at once, by losslab's choice of library or by torch's own.

One process, everything in turns. --apart tells where the CPU time of each loss goes, operation by operation. Losses of
values and sequences have no vocabulary, and are named as left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import losslab
from benchmarks.tools.options import add_json, add_only, add_rounds, add_threads, add_vocabularies
from benchmarks.tools.shape import Shape as Run
from benchmarks.tools.turns import introduced, keep, ratio, told
from losslab.conformance.measure import AT_ONCE, DENSE, FLOOR, Shape, Variant, Work, make_work
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
BY_TORCH, AT_ONCE_BY_TORCH = "the same by MKL", "all at once by MKL"
PRODUCTS = (FLOOR, BY_TORCH, AT_ONCE, AT_ONCE_BY_TORCH)
BY_MKL = (BY_TORCH, AT_ONCE_BY_TORCH, DENSE)
MULTIPLY = ("mm", "addmm", "addmm_", "_linear_pointwise")
SMALL = 0.001
"""Share of the products from which on an operation has a line of its own."""


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
    parser.add_argument("--apart", action="store_true", help="instead: where the CPU time of each loss goes")
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
    variants = {name: Variant(AT_ONCE if name in (AT_ONCE, AT_ONCE_BY_TORCH) else FLOOR) for name in PRODUCTS}
    variants[DENSE] = Variant(DENSE)
    variants |= {name: Variant(name, config) for name, (_, config) in losses.items() if config is not None}
    for num_outputs in arguments.vocab:
        for width in WIDTHS:
            shape = Shape(POSITIONS, width, num_outputs, threads)
            if arguments.apart:
                _apart(variants, shape, rounds)
                continue
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
            with torchs_products() if name in BY_MKL else nullcontext():
                work.run(shape)  # does not count
                cpu, wall = time.process_time(), work.run(shape)
                found[name][1].append(time.process_time() - cpu)
                found[name][0].append(wall)
    return found


class _Operations(TorchDispatchMode):
    """CPU seconds of the operations that run under it, by kind and name."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.seconds: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        started = time.process_time()
        result = func(*args, **(kwargs or {}))
        taken = time.process_time() - started
        shapes = [each.shape for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)]
        self.seconds[self._kind(func.overloadpacket.__name__, shapes)] += taken
        return result

    def _kind(self, name: str, shapes: list[torch.Size]) -> str:
        width, num_outputs = self.shape.width, self.shape.num_outputs
        if name in MULTIPLY:
            return "products"
        if any(num_outputs in each and width in each for each in shapes):
            return f"V × D: {name}"
        if any(num_outputs in each and each.numel() > num_outputs for each in shapes):
            return f"n × V: {name}"
        return "smaller operations"


def _apart(variants: dict[str, Variant], shape: Shape, rounds: int) -> None:
    """Print the least CPU time of each kind of operation in all rounds, over that of the quickest products."""
    whole: dict[str, float] = defaultdict(lambda: float("inf"))
    parts: dict[str, dict[str, float]] = {name: defaultdict(lambda: float("inf")) for name in variants}
    for i in range(rounds):
        for name, variant in variants.items() if i % 2 == 0 else reversed(variants.items()):
            work = make_work(variant, shape)
            with torchs_products() if name in BY_MKL else nullcontext():
                work.run(shape)  # does not count
                whole[name] = min(whole[name], _cpu_seconds(work, shape))
                with _Operations(shape) as operations:
                    work.run(shape)
            for kind, seconds in operations.seconds.items():
                parts[name][kind] = min(parts[name][kind], seconds)
    least = min(whole[name] for name in PRODUCTS)
    print(f"D = {shape.width}, V = {shape.num_outputs:,}: CPU time over {1e3 * least:.0f} ms of the quickest products")
    for name in variants:
        print(f"{name:<40}{whole[name] / least:>8.3f}")
        for kind, seconds in sorted(parts[name].items(), key=lambda item: -item[1]):
            if seconds >= SMALL * least:
                print(f"    {kind:<36}{seconds / least:>8.3f}")
        print(f"    {'between operations':<36}{(whole[name] - sum(parts[name].values())) / least:>8.3f}")


def _cpu_seconds(work: Work, shape: Shape) -> float:
    started = time.process_time()
    work.run(shape)
    return time.process_time() - started


def _table(found: dict[str, tuple[list[float], list[float]]], costs: dict[str, str]) -> dict[str, Any]:
    print(f"{'':<30}{'ms':>7}{'of the products':>22}{'in CPU time':>22}{'of dense CE':>22}")
    quickest = min(PRODUCTS, key=lambda name: statistics.median(found[name][0]))
    ordered = sorted(found, key=lambda name: (costs.get(name, ""), found[name][0]))
    result, cost = {}, ""
    for name in ordered:
        own = costs.get(name, "")
        if own != cost:
            cost = own
            print(f"{own}: {SHARES.get(own, '')}")
        wall, cpu = found[name]
        ratios = ratio(wall, found[quickest][0]), ratio(cpu, found[quickest][1]), ratio(wall, found[DENSE][0])
        print(f"{name:<30}{1e3 * statistics.median(wall):>7.0f}" + "".join(f"{told(each):>22}" for each in ratios))
        result[name] = {
            "cost_class": own, "seconds": wall, "cpu_seconds": cpu, "of_products": ratios[0],
            "of_products_in_cpu": ratios[1], "of_dense": ratios[2],
        }  # fmt: skip
    return result
