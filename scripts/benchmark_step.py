"""A whole training step of losslab beside those of its peers, for each vocabulary.

All variants are alive and work in turns, each in a process of its own, whose largest resident memory counts. A ratio is
how many times as quick losslab is: the peer's seconds over ours, of the same round.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from typing import Any

import benchmark_peers as peers
from benchmark_options import add_json, add_only, add_rounds, add_threads, add_vocabularies
from benchmark_turns import Measured, Turns, Variant, introduced, keep, ratio, take_turns, told

STEPS = {8192: 6}
"""Steps a turn; 3 where nothing is said."""
OURS = "losslab"


def in_bf16(shape: peers.Shape, turns: Turns) -> None:
    peers.losslab(replace(shape, words=(*shape.words, "trainer.precision=bf16-mixed")), turns)


def compiled(shape: peers.Shape, turns: Turns) -> None:
    peers.losslab(replace(shape, words=(*shape.words, "trainer.compile=true")), turns)


def by_torch(shape: peers.Shape, turns: Turns) -> None:
    """The step with torch's own products."""
    import torch

    torch.backends.mkldnn.enabled = False
    peers.losslab(shape, turns)


VARIANTS: dict[str, Variant] = {
    OURS: peers.losslab,
    "losslab, bf16-mixed": in_bf16,
    "losslab, trainer.compile": compiled,
    "losslab, products by MKL": by_torch,
    "plain PyTorch loop": peers.plain,
    "plain loop, torch.compile": peers.compiled,
    "transformers Trainer": peers.trainer,
    "litgpt": peers.litgpt,
    "F.linear_cross_entropy": peers.linear_cross_entropy,
    "chunks, checkpointed": peers.chunked,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    add_vocabularies(parser)
    add_only(parser, VARIANTS, "ours, and variants")
    add_json(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a table for each vocabulary."""
    threads, rounds = arguments.threads, arguments.rounds
    chosen = {name: variant for name, variant in VARIANTS.items() if name == OURS or name in arguments.only}
    shape = peers.Shape(arguments.vocab[0])
    here = introduced(
        f"a training step of {shape.batch_size} x {shape.context} tokens: decoder of {shape.layers} layers, "
        f"{shape.heads} heads, width {shape.width}, tied embeddings; AdamW, clipping at 1.0; fp32",
        threads,
        rounds,
    )
    for vocab_size in arguments.vocab:
        own = replace(shape, vocab_size=vocab_size)
        found = take_turns(chosen, own, threads=threads, rounds=rounds, steps=STEPS.get(vocab_size, 3))
        print(f"V = {vocab_size:,}")
        keep(arguments.json, f"step {vocab_size}", {"machine": here, "variants": _table(found, own.positions)})
    return 0


def _table(found: dict[str, Measured], positions: int) -> dict[str, Any]:
    """Print it, and return it."""
    wide = max(map(len, found))
    print(
        f"{'':<{wide}}{'ms':>8}{'tokens/s':>10}{'losslab is x as quick':>24}{'the same in CPU time':>24}{'MiB':>7}"
        f"{'of ours':>9}"
    )
    ours = found[OURS]
    result: dict[str, Any] = {}
    for name, measured in found.items():
        if measured.missing:
            print(f"{name:<{wide}}  not here: {measured.missing}")
            result[name] = {"missing": measured.missing}
            continue
        seconds = statistics.median(measured.wall)
        wall, cpu = ratio(measured.wall, ours.wall), ratio(measured.cpu, ours.cpu)
        print(
            f"{name:<{wide}}{1e3 * seconds:>8.0f}{positions / seconds:>10,.0f}{told(wall):>24}{told(cpu):>24}"
            f"{measured.mib:>7.0f}{measured.mib / ours.mib:>9.2f}",
            flush=True,
        )
        result[name] = {
            "seconds": measured.wall, "cpu_seconds": measured.cpu, "peak_mib": measured.mib, "losslab_is": wall,
            "losslab_is_in_cpu": cpu,
        }  # fmt: skip
    return result
