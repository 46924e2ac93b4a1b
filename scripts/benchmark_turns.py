"""Measurements side by side: each variant in a process of its own, all alive, one working at a time, in turns."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LONGEST = 900
"""Seconds for a turn, compilation included."""
Turns = Iterator[None]
"""Yields once for each step that is to be made; a variant does its work between one and the next."""
Variant = Callable[[Any, Turns], None]
"""Takes what the variants share, such as a shape, and the turns."""


class NotHere(Exception):
    """A peer that is not installed; its text says what is missing."""


@dataclass
class Measured:
    """Seconds of a step in every round, and the largest resident memory of the process in them."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    mib: float = 0.0
    missing: str = ""
    """The reason why nothing was measured."""


def _turns(link: Connection) -> Turns:
    import torch

    from losslab.training.output.memory import peak_memory_mib, reset_peak_memory

    while (asked := link.recv()) is not None:
        steps, reset = asked
        if reset:
            reset_peak_memory()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            yield
        taken = time.perf_counter() - wall, time.process_time() - cpu
        link.send((*taken, peak_memory_mib(torch.device("cpu"))))


def _work(variant: Variant, shared: Any, threads: int, link: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            variant(shared, _turns(link))
        except NotHere as missing:
            link.send(str(missing))
        except Exception:  # a peer may raise anything
            link.send(RuntimeError(traceback.format_exc()))


def take_turns(
    variants: Mapping[str, Variant], shared: Any, *, threads: int, rounds: int, steps: int, warm: int = 3
) -> dict[str, Measured]:
    """Measure `steps` steps of each variant a round, after `warm` that do not count and one more, whose memory does.

    Raises:
        TimeoutError: for a turn that does not end.
        RuntimeError: for a variant that fails.
    """
    context = multiprocessing.get_context("spawn")
    links: dict[str, Connection] = {}
    processes = []
    found = {name: Measured() for name in variants}
    try:
        for name, variant in variants.items():
            links[name], other = context.Pipe()
            process = context.Process(target=_work, args=(variant, shared, threads, other), daemon=False)
            process.start()
            other.close()
            processes.append(process)
            for count, reset in ((warm, False), (1, True)):
                if not found[name].missing:
                    _one(links[name], name, found[name], count, reset=reset)
        for measured in found.values():
            measured.wall, measured.cpu = [], []
        there = [name for name in variants if not found[name].missing]
        for i in range(rounds):
            for name in there if i % 2 == 0 else reversed(there):
                _one(links[name], name, found[name], steps)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return found


def _one(link: Connection, name: str, measured: Measured, steps: int, *, reset: bool = False) -> None:
    link.send((steps, reset))
    if not link.poll(LONGEST):
        raise TimeoutError(f"{name} took more than {LONGEST} s for {steps} steps")
    answer = link.recv()
    if isinstance(answer, RuntimeError):
        raise answer
    if isinstance(answer, str):
        measured.missing = answer
        return
    wall, cpu, mib = answer
    measured.wall.append(wall / steps)
    measured.cpu.append(cpu / steps)
    measured.mib = mib if reset else max(measured.mib, mib)


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """The median, the smallest and the largest of the rounds' ratios."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(found), min(found), max(found)


def told(found: tuple[float, float, float]) -> str:
    """A ratio with its spread."""
    return f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


def machine(threads: int) -> dict[str, Any]:
    """The processor and the versions that the figures are of."""
    import torch

    from losslab.products import has_quicker_library

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return {
        "processor": next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown"),
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "float32 products by oneDNN": has_quicker_library(),
        "load": os.getloadavg()[0],
    }


def introduced(what: str, threads: int, rounds: int) -> dict[str, Any]:
    """Print what is measured and where, and return the latter."""
    here = machine(threads)
    print(
        f"{what}\n{here['processor']}, {here['cores']} cores, {threads} thread(s), torch {here['torch']} "
        f"({here['vectors']}), load {here['load']:.1f}; {rounds} rounds in turns: medians, and [smallest, largest]\n"
        f"float32 products by {'oneDNN' if here['float32 products by oneDNN'] else 'MKL, as torch has it'}",
        flush=True,
    )
    return here


def keep(path: Path | None, name: str, content: Mapping[str, Any]) -> None:
    """Write the figures of one part into a file of JSON, beside those of the other parts that are in it."""
    if path is None:
        return
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | {name: content}, indent=2, sort_keys=True) + "\n")
