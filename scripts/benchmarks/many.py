"""Many small runs on one device: slots, threads, streams, CUDA graphs, and one batched model, side by side.

steps     steps a second of all runs together, of the quickstart's model with five losses; a ratio is that beside the
          first row of the table, of the same round
equality  whether a member of a batched model is the same again, among others and by itself
sweeps    the same multirun with one slot and with several

All processes of `steps` are alive, and those of one row work at a time. On a GPU slots share the card, with and without
CUDA's Multi-Process Service; on a CPU each has a core, and runs with another number of threads round otherwise, so that
their results are not those of one slot. Everything is float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.many_runs.crews import START, Crew, Mps, at_work, in_child, multi_process_service
from benchmarks.many_runs.equality import compare, table
from benchmarks.many_runs.members import Work
from benchmarks.many_runs.sweeps import measure
from benchmarks.many_runs.variants import Way, ways
from benchmarks.tools.options import add_json, add_only, add_rounds, add_threads, numbers, positive
from benchmarks.tools.shape import Shape
from benchmarks.tools.turns import introduced, keep, ratio, told
from losslab.errors import UserError

PARTS = ("steps", "equality", "sweeps")
NANO = Shape(2048, layers=2, heads=2, width=64, context=128, batch_size=16)
"""The model and the batch of conf/experiment/quickstart.yaml."""
USUAL: dict[str, dict[str, Any]] = {
    "gpu": {"slots": [2, 4, 8], "seeds": [4, 16], "seconds": 0.8, "steps": 20},
    "cpu": {"slots": [2], "seeds": [2], "seconds": 6.0, "steps": 5},
}
"""Values of the options that are not given."""
_LONGEST = 60.0
_MOST_SWEPT = 4
"""Slots of the multirun at most, which is one of as many runs."""
_STEPS_SWEPT = 12
"""Steps of each of them for one of `--steps`: 240 on a GPU, as those of the quickstart."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rounds(parser)
    add_threads(parser)
    add_only(parser, PARTS, "parts")
    add_json(parser)
    parser.add_argument("--device", choices=list(USUAL), default="cpu", help="default: %(default)s")
    usual = {name: " or ".join(_plain(values[name]) for values in USUAL.values()) for name in USUAL["gpu"]}
    parser.add_argument("--slots", type=numbers, metavar="K,…", help=f"default: {usual['slots']}, by the device")
    parser.add_argument(
        "--seeds", type=numbers, metavar="N,…", help=f"of each loss of a batched model (default: {usual['seeds']})"
    )
    parser.add_argument(
        "--seconds", type=_above_zero, metavar="S", help=f"of a row's turn (default: {usual['seconds']})"
    )
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help=f"of equality, and 1 / 12 of those of sweeps (default: {usual['steps']})",
    )


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0 and below {_LONGEST:.0f}")
    return value


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def main(arguments: argparse.Namespace) -> int:
    """Print a table for each part; 1 where one fails."""
    asked = {name: getattr(arguments, name) or usual for name, usual in USUAL[arguments.device].items()}
    name = _device(arguments.device)
    here = introduced(
        f"many small runs on {name}: a decoder of {NANO.layers} layers, {NANO.heads} heads, width {NANO.width}, "
        f"batches of {NANO.batch_size} x {NANO.context} tokens, {NANO.vocab_size:,} outputs; AdamW, clipping; float32",
        arguments.threads,
        arguments.rounds,
    )
    device = "cuda" if arguments.device == "gpu" else "cpu"
    works = [Work(NANO, device, seeds=seeds) for seeds in asked["seeds"]]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        service = Mps({}, "on a CPU there is none")
        if device == "cuda" and {"steps", "sweeps"} & set(arguments.only):
            service = stack.enter_context(multi_process_service(folder))
        parts = {
            "steps": partial(_steps, works, arguments.threads, arguments.rounds, asked, service),
            "equality": partial(_equality, works[0], asked["steps"], arguments.threads),
            "sweeps": partial(_sweeps, folder, arguments.device, asked, service),
        }
        failed = False
        for part in arguments.only:
            began = time.monotonic()
            try:
                found = parts[part]()
            except RuntimeError as error:  # a machine is held for minutes: the other parts go on
                print(f"{part} failed: {error}", file=sys.stderr)
                failed = True
                continue
            print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
            keep(arguments.json, f"many {part}, {arguments.device}", {"machine": here | {"device": name}, **found})
    return int(failed)


def _device(kind: str) -> str:
    """The name of the device. Raises UserError where there is none."""
    if kind == "cpu":
        return f"{os.cpu_count()} cores"
    name = in_child(lambda: torch.cuda.get_device_name() if torch.cuda.is_available() else "", _LONGEST)
    if not name:
        raise UserError("--device gpu: torch finds no GPU here; --device cpu computes without one")
    return str(name)


def _steps(works: list[Work], threads: int, rounds: int, asked: dict[str, Any], service: Mps) -> dict[str, Any]:
    import_module("losslab.training.process.worker")  # else each process would import Lightning by itself
    rows, kinds = ways(works, threads, asked["slots"])
    missing = {name: service.missing for name, kind in kinds.items() if kind.mps and service.missing}
    crews = {
        name: Crew(kind.part, kind.size, kind.threads, service.environment if kind.mps else {})
        for name, kind in kinds.items()
        if name not in missing
    }
    speeds: dict[str, list[float]] = {row.name: [] for row in rows}
    cpu: dict[str, list[float]] = {row.name: [] for row in rows}
    with at_work(list(crews.values()), START[works[0].device]):
        clients = service.clients()
        for i in range(rounds):
            for row in rows if i % 2 == 0 else reversed(rows):
                crew = crews.get(row.crew)
                if crew is None or crew.missing:
                    continue
                turn = crew.work(asked["seconds"], row.processes, row.windows, _LONGEST)
                if not crew.missing:
                    steps = row.at_once * turn.steps
                    speeds[row.name].append(steps / turn.wall)
                    cpu[row.name].append(turn.cpu / steps)
    if service.environment:
        print(f"{clients} processes were connected to the Multi-Process Service")
    missing |= {name: crew.missing for name, crew in crews.items() if crew.missing}
    return {"rows": _print_steps(rows, speeds, cpu, missing), "mps clients": clients}


def _print_steps(
    rows: list[Way], speeds: dict[str, list[float]], cpu: dict[str, list[float]], missing: dict[str, str]
) -> dict[str, Any]:
    wide = max(len(row.name) for row in rows)
    print(f"{'':<{wide}}{'steps/s':>10}{'x the first row':>22}{'CPU ms a step':>15}")
    found: dict[str, Any] = {}
    base = speeds[rows[0].name]
    for row in rows:
        if row.crew in missing or not speeds[row.name]:
            print(f"{row.name:<{wide}}  not here: {missing.get(row.crew, 'it was not measured')}")
            found[row.name] = {"missing": missing.get(row.crew, "")}
            continue
        own = speeds[row.name]
        times = ratio(own, base) if len(own) == len(base) else None
        spent = 1e3 * statistics.median(cpu[row.name])
        print(
            f"{row.name:<{wide}}{statistics.median(own):>10.1f}{told(times) if times else '–':>22}{spent:>15.2f}",
            flush=True,
        )
        found[row.name] = {"steps_per_second": own, "times": times, "cpu_seconds": cpu[row.name]}
    return found


def _equality(work: Work, steps: int, threads: int) -> dict[str, Any]:
    def work_it_out() -> Any:
        torch.set_num_threads(threads)
        return compare(work, steps)

    found = in_child(work_it_out, _LONGEST if work.device == "cuda" else 20 * _LONGEST)
    print(
        f"after {steps} steps of {len(work.members)} members: equal losses and weights, or the largest relative "
        "difference of a loss on the way and of the weights"
    )
    print("\n".join(table(found)), flush=True)
    return {"equality": found}


def _sweeps(folder: Path, device: str, asked: dict[str, Any], service: Mps) -> dict[str, Any]:
    slots = min(max(asked["slots"]), _MOST_SWEPT)
    found = measure(folder, device, slots, _STEPS_SWEPT * asked["steps"], service)
    print(f"a multirun of {found['runs']} runs of {found['steps']} steps; seconds of the command, imports included")
    sweeps = found["sweeps"]
    first = next(iter(sweeps.values()))["seconds"] if sweeps else 0.0
    for name, row in sweeps.items():
        print(
            f"{name:<14}{row['seconds']:>7.1f} s  {first / row['seconds']:.2f} x the first row; results of "
            f"{row['equal runs']} runs are the first row's; first step after {row['first step after']:.1f} s (median), "
            f"on {row['device']}, {row['threads']} thread(s) a run",
            flush=True,
        )
    for name, reason in found["missing"].items():
        print(f"{name:<14}  not here: {reason}")
    return found
