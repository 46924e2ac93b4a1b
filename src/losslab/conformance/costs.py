"""Measure the costs of a training step under each loss of a sweep side by side, for `losslab compare`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from losslab.config.stored import open_config
from losslab.conformance.measure import Shape
from losslab.conformance.processes import started
from losslab.console import say, working
from losslab.contracts import Batch, DataInfo
from losslab.errors import Fault, UserError
from losslab.files import write_atomic
from losslab.records import now
from losslab.run_folder import RunFolder
from losslab.training.factory import build_loss, build_network
from losslab.training.optimizers import make_optimizer
from losslab.training.output.checkpoints import read_checkpoint
from losslab.training.output.memory import keep_freed_memory
from losslab.training.output.provenance import hardware, versions
from losslab.training.process.devices import cores, uses_gpu
from losslab.training.scoring.stored_info import stored_info

ROUNDS = 5
_PATIENCE = 3
"""The most times the rounds that a busy machine gets."""
_REPEATS, _SECONDS = 5, 1.0
"""A process times at least so many steps, for at least so long; the quickest counts."""


@dataclass(frozen=True)
class Step:
    """A training step: its batch in `micro_batches` parts of so many windows."""

    config: dict[str, Any]
    micro_batches: int
    rows: int
    shape: Shape


def measure_costs(
    runs: Mapping[str, RunFolder],
    target: Path,
    *,
    is_settled: Callable[[Mapping[str, Sequence[float]]], bool],
    rounds: int = ROUNDS,
    trust: Sequence[str] = (),
) -> None:
    """Time a step of each run in turns, each in a process of its own, and write the seconds of every round to `target`.

    Args:
        runs: what to call a cost → a run that has it.
        is_settled: whether these seconds can be compared; up to _PATIENCE times the rounds are measured until then.
        trust: the classes outside losslab that the runs may name.

    Raises:
        UserError: for a run that cannot be measured.
    """
    steps = {key: _step(run, list(trust)) for key, run in runs.items()}
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    keys = list(steps)
    for i in working(range(rounds * len(keys)), "measuring costs", rounds * len(keys)):
        key = keys[i % len(keys)]  # in turns, so that a slow minute slows them all
        seconds[key].append(_seconds(steps[key], runs[key]))
    while not is_settled(seconds) and len(seconds[keys[0]]) < _PATIENCE * rounds:
        for key in keys:
            seconds[key].append(_seconds(steps[key], runs[key]))
    rounds = len(seconds[keys[0]])
    first = next(iter(steps.values())).shape
    content = {
        "time": now(),
        "rounds": rounds,
        "hardware": hardware(torch.device(first.device), 1) | {"threads": first.threads, "precision": first.precision},
        "versions": versions(),
        "seconds_per_step": seconds,
    }
    write_atomic(target, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")
    if not is_settled(seconds):
        say("the machine is busy: the quickest rounds of a loss disagree, so that costs are FLOPs; try it again later")
        return
    say(f"costs of {len(keys)} losses, measured side by side in {rounds} rounds: {target}")


def _step(run: RunFolder, trust: list[str]) -> Step:
    record = run.record()
    config = open_config(run.config(), trust, run.config_file)
    if build_loss(config).reads_teacher:
        raise UserError(f"{run}: the cost of a loss with a teacher is not measured; leave it out with --where loss=…")
    trainer, data = config["trainer"], config["data"]
    rows = trainer["micro_batch_size"] or data["batch_size"] // (trainer["accumulate_grad_batches"] or 1)
    size = record.provenance.get("vocab_size")
    if size is None and (info := stored_info(read_checkpoint(run.best))):
        size = info.vocab_size
    if not isinstance(size, int) or not isinstance(config["model"].get("context"), int):
        raise UserError(f"{run} does not say how large its vocabulary is, so that its cost cannot be measured")
    shape = Shape(
        positions=rows * config["model"]["context"],
        width=config["model"]["width"],
        num_outputs=size,
        threads=trainer["threads"] or record.hardware.get("threads") or cores(),
        device="cuda" if uses_gpu(trainer) else "cpu",
        precision=trainer["precision"],
    )
    return Step(config, max(1, data["batch_size"] // rows), rows, shape)


def _seconds(step: Step, run: RunFolder) -> float:
    with started(time_steps, step) as receiving:
        try:
            answer = receiving.recv()
        except EOFError:
            raise UserError(f"the cost of {run.name} could not be measured; see above") from None
    if isinstance(answer, Fault):
        raise UserError(f"the cost of {run.name} could not be measured: {answer}")
    return float(answer)


def time_steps(step: Step, answer: Connection) -> None:
    """Send the seconds of a step (forward, backward, optimizer) on random tokens: the quickest of some."""
    shape = step.shape
    torch.set_num_threads(shape.threads)
    keep_freed_memory()
    device = torch.device(shape.device)
    counts = torch.ones(shape.num_outputs, dtype=torch.float64)
    info = DataInfo(splits={}, mean_positions=1, vocab_size=shape.num_outputs, class_counts=counts)
    network = build_network(step.config, info)
    network.backbone.to(device, shape.dtype)
    network.projection.to(device, shape.dtype)  # type: ignore[attr-defined]
    network.loss.to(device)
    optimizer = make_optimizer(step.config["optimizer"], network, fuse=True)
    if step.config["trainer"]["compile"]:
        network.compile_layers()
    batch = _batch(step, device)
    found: list[float] = []
    while len(found) <= _REPEATS or sum(found) < _SECONDS:
        began = time.perf_counter()
        for _ in range(step.micro_batches):
            with shape.autocast():
                total = network(batch).total
            total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if shape.device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    answer.send(min(found[1:]))


def _batch(step: Step, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    size = (step.rows, step.config["model"]["context"])
    tokens, target = (torch.randint(step.shape.num_outputs, size, generator=generator).to(device) for _ in range(2))
    return Batch({"tokens": tokens}, target, torch.ones(size, device=device), {})
