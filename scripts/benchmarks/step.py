"""A whole training step of losslab beside those of its peers, for each vocabulary.

All variants are alive and work in turns, each in a process of its own, whose largest memory counts: what is resident on
a CPU, what torch allocates on a GPU. Those of losslab begin with the variables that `losslab train` gives to its
processes. A ratio is how many times as quick losslab is: the peer's seconds over ours, of the same round. A peer that
fails leaves its error in its row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.tools import peers
from benchmarks.tools import plain as by_hand
from benchmarks.tools.options import add_json, add_only, add_rounds, add_threads, numbers
from benchmarks.tools.shape import Shape
from benchmarks.tools.turns import (
    Measured,
    NotHere,
    Turns,
    Variant,
    introduced,
    introduced_card,
    keep,
    ratio,
    take_turns,
    told,
    versions,
)
from losslab.errors import UserError
from losslab.training.process.allocator import allocator_environment

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers"
"""The environment of --peers."""
OURS = "losslab"
STEPS = {"cpu": {8192: 6, 50304: 3}, "gpu": {50304: 8, 128256: 8}}
"""Device → vocabularies where none are named, and the steps of a turn."""
PACKAGES = ("triton", "lightning", "transformers", "accelerate", "litgpt", "liger-kernel", "cut-cross-entropy")


def in_bf16(shape: Shape, turns: Turns) -> None:
    peers.losslab(replace(shape, bf16=True), turns)


def compiled(shape: Shape, turns: Turns) -> None:
    peers.losslab(replace(shape, words=(*shape.words, "trainer.compile=true")), turns)


def by_torch(shape: Shape, turns: Turns) -> None:
    """The step with torch's own products."""
    torch.backends.mkldnn.enabled = False
    peers.losslab(shape, turns)


def by_liger(shape: Shape, turns: Turns) -> None:
    if find_spec("liger_kernel") is None:
        raise NotHere("liger-kernel is not installed")
    peers.losslab(replace(shape, words=(*shape.words, "loss.backend=liger")), turns)


VARIANTS: dict[str, Variant] = {
    OURS: peers.losslab,
    "losslab, bf16-mixed": in_bf16,
    "losslab, trainer.compile": compiled,
    "losslab, products by MKL": by_torch,
    "losslab, loss.backend=liger": by_liger,
    "plain PyTorch loop": by_hand.plain,
    "plain loop, torch.compile": by_hand.compiled,
    "transformers Trainer": peers.trainer,
    "litgpt": peers.litgpt,
    "F.linear_cross_entropy": by_hand.linear_cross_entropy,
    "chunks, checkpointed": by_hand.chunked,
    "liger-kernel": by_hand.liger,
    "cut-cross-entropy": by_hand.cut,
}
ONLY_ON = {
    "losslab, bf16-mixed": "cpu", "losslab, products by MKL": "cpu", "losslab, loss.backend=liger": "gpu",
    "liger-kernel": "gpu", "cut-cross-entropy": "gpu",
}  # fmt: skip
COMPILED = {"losslab, trainer.compile", "plain loop, torch.compile"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    parser.add_argument(
        "--device", choices=STEPS, default="cpu", help="gpu: GPT-2 small in bf16 autocast on a CUDA card (default: cpu)"
    )
    defaults = [",".join(map(str, steps)) for steps in STEPS.values()]
    parser.add_argument(
        "--vocab", type=numbers, metavar="V,…", help="numbers of outputs (default: {}, on a GPU {})".format(*defaults)
    )
    add_only(parser, VARIANTS, "ours, and variants")
    parser.add_argument(
        "--peers", action="store_true", help="in an environment of the peers, .venv-peers, which is made where it lacks"
    )
    add_json(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a table for each vocabulary."""
    if arguments.peers and Path(sys.prefix) != PEERS:
        return _among_peers()
    device, threads, rounds = arguments.device, arguments.threads, arguments.rounds
    on_gpu = device == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise UserError(
            f"--device gpu needs a CUDA card, and torch {torch.__version__} finds none; leave it out for a CPU"
        )
    there = {name: variant for name, variant in VARIANTS.items() if ONLY_ON.get(name, device) == device}
    chosen = {name: variant for name, variant in there.items() if name == OURS or name in arguments.only}
    vocabularies = arguments.vocab or list(STEPS[device])
    shape = _shape(vocabularies[0], on_gpu)
    here = (introduced_card if on_gpu else introduced)(
        f"a training step: decoder of {shape.layers} layers, {shape.heads} heads, width {shape.width}, tied "
        f"embeddings; AdamW, clipping at 1.0; {'bf16 autocast' if shape.bf16 else 'fp32'}",
        threads,
        rounds,
    )
    here["packages"] = versions(PACKAGES)
    print(", ".join(f"{name} {number}" for name, number in here["packages"].items()))
    if left_out := [name for name in arguments.only if name not in there]:
        print(f"left out, for they need a {'CPU' if on_gpu else 'GPU (--device gpu)'}: {'; '.join(left_out)}")
    ours_failed = False
    for vocab_size in vocabularies:
        shape = _shape(vocab_size, on_gpu)
        found = take_turns(
            chosen,
            shape,
            threads=threads,
            rounds=rounds,
            steps=STEPS[device].get(vocab_size, min(STEPS[device].values())),
            device=shape.device,
            abreast=COMPILED if on_gpu else (),
            environments=dict.fromkeys((name for name in chosen if name.startswith(OURS)), allocator_environment()),
        )
        print(f"V = {vocab_size:,}, {shape.batch_size} x {shape.context:,} tokens a step")
        name = f"step {'gpu ' if on_gpu else ''}{vocab_size}"
        keep(arguments.json, name, {"machine": here, "variants": table(found, shape.positions, cpu=not on_gpu)})
        if found[OURS].failed:
            ours_failed = True
            print(found[OURS].failed, file=sys.stderr)
    return int(ours_failed)


def _among_peers() -> int:
    """The same command by the Python of the peers' environment; returns where that could not be made."""
    made = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", ". scripts/environment.sh; make_peers_environment"], cwd=ROOT, check=False
    )
    if made.returncode:
        return made.returncode
    python = str(PEERS / "bin/python")
    os.execv(python, [python, *sys.argv])


def _shape(vocab_size: int, on_gpu: bool) -> Shape:
    return Shape.on_gpu(vocab_size) if on_gpu else Shape(vocab_size)


def table(found: Mapping[str, Measured], positions: int, *, cpu: bool) -> dict[str, Any]:
    """Print it, and return it.

    Args:
        cpu: with a column of CPU time; on a GPU a process waits for the card and is busy all the while.
    """
    wide = max(map(len, found))
    columns = ["losslab is x as quick", *(["the same in CPU time"] if cpu else [])]
    print(f"{'':<{wide}}{'ms':>8}{'tokens/s':>10}{''.join(f'{each:>24}' for each in columns)}{'MiB':>8}{'of ours':>9}")
    ours = found[OURS]
    result: dict[str, Any] = {}
    for name, measured in found.items():
        if not measured.usable:
            print(f"{name:<{wide}}  " + (f"not here: {measured.missing}" if measured.missing else measured.failure))
            result[name] = {"missing": measured.missing} if measured.missing else {"failed": measured.failed}
            continue
        seconds = statistics.median(measured.wall)
        row = f"{name:<{wide}}{1e3 * seconds:>8.1f}{positions / seconds:>10,.0f}"
        result[name] = {"seconds": measured.wall, "cpu_seconds": measured.cpu, "peak_mib": measured.mib}
        if ours.usable:
            wall, in_cpu = ratio(measured.wall, ours.wall), ratio(measured.cpu, ours.cpu)
            row += f"{told(wall):>24}" + (f"{told(in_cpu):>24}" if cpu else "")
            row += f"{measured.mib:>8,.0f}{measured.mib / ours.mib:>9.2f}"
            result[name] |= {"losslab_is": wall, "losslab_is_in_cpu": in_cpu}
        print(row, flush=True)
    return result
