"""Measurements side by side: each variant in a process of its own, all alive, one working at a time, in turns."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

# These import nothing but torch: the memory of every process here is measured.
from losslab.products import has_quicker_library
from losslab.sweeps.server import changed_environment
from losslab.training.output.memory import peak_memory_mib, reset_peak_memory

LONGEST = {"cpu": 900, "cuda": 180}
"""Seconds for a turn, compilation included. A kernel that hangs on a GPU is to leave time for the others."""
GRACE = 30
"""Seconds in which all processes are to end once they are asked to."""
Turns = Iterator[None]
"""Yields once for each step that is to be made; a variant does its work between one and the next."""
Variant = Callable[[Any, Turns], None]
"""Takes what the variants share, such as a shape, and the turns; returns when they end."""


class NotHere(Exception):
    """A peer that is not installed; its text says what is missing."""


@dataclass
class Measured:
    """Seconds of a step in every round, and the largest memory in them: on a CPU what was resident of the process, on a
    GPU what torch had allocated."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    mib: float = 0.0
    missing: str = ""
    """The reason why nothing was measured."""
    failed: str = ""
    """The error that ended it; its last line says what was wrong."""

    @property
    def usable(self) -> bool:
        return not self.missing and not self.failed

    @property
    def failure(self) -> str:
        """One line of at most 160 characters."""
        return shorten(self.failed.strip().splitlines()[-1], 160, placeholder=" …")


class _Failure(str):
    """A traceback, as it is sent from a process to its parent."""


def _turns(link: Connection, device: torch.device) -> Turns:
    """Measure the steps of every turn that the parent asks for."""
    while (asked := link.recv()) is not None:
        steps, reset = asked
        if device.type == "cuda":
            yield  # takes the memory that the last turn gave back
            torch.cuda.synchronize()
        if reset:
            reset_peak_memory()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            yield
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken = time.perf_counter() - wall, time.process_time() - cpu
        peak = peak_memory_mib(device)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the others need it
        link.send((*taken, peak))


def _work(variant: Variant, shared: Any, threads: int, device: str, link: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            variant(shared, _turns(link, torch.device(device)))
        except NotHere as missing:
            link.send(str(missing))
        except Exception:  # a peer may raise anything
            link.send(_Failure(traceback.format_exc()))


class _Worker:
    """The process of a variant, and what was measured of it."""

    def __init__(
        self, name: str, variant: Variant, shared: Any, threads: int, device: str, environment: Mapping[str, str]
    ) -> None:
        context = multiprocessing.get_context("spawn")  # each with an allocator of its own
        self.measured = Measured()
        self._longest = LONGEST[device]
        self._asked = (0, False)
        self._link, other = context.Pipe()
        self._process = context.Process(target=_work, args=(variant, shared, threads, device, other), name=name)
        with changed_environment(environment):
            self._process.start()
        other.close()

    def ask(self, steps: int, *, reset: bool = False) -> None:
        """Let it work. One that has ended is found by `answer`."""
        self._asked = (steps, reset)
        if self.measured.usable:
            with suppress(OSError):
                self._link.send((steps, reset))

    def answer(self) -> None:
        """Take the figures of what was asked for, or the reason why there are none."""
        steps, reset = self._asked
        measured = self.measured
        if not measured.usable:
            return
        if not self._link.poll(self._longest):
            measured.failed = f"took more than {self._longest} s for {steps} steps"
            self._process.kill()
            return
        try:
            found = self._link.recv()
        except (EOFError, OSError):
            self._process.join()
            measured.failed = f"its process ended with code {self._process.exitcode}"
            return
        if isinstance(found, _Failure):
            measured.failed = found
        elif isinstance(found, str):
            measured.missing = found
        else:
            wall, cpu, mib = found
            measured.wall.append(wall / steps)
            measured.cpu.append(cpu / steps)
            measured.mib = mib if reset else max(measured.mib, mib)

    def turn(self, steps: int, *, reset: bool = False) -> None:
        self.ask(steps, reset=reset)
        self.answer()

    def finish(self) -> None:
        """Ask it to return: a process that is killed leaves temporary folders and semaphores behind."""
        with suppress(OSError):
            self._link.send(None)

    def stop(self, deadline: float) -> None:
        """Wait for its end until then, by time.monotonic()."""
        self._process.join(max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.join()


def take_turns(
    variants: Mapping[str, Variant],
    shared: Any,
    *,
    threads: int,
    rounds: int,
    steps: int,
    warm: int = 3,
    device: str = "cpu",
    abreast: Collection[str] = (),
    environments: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Measured]:
    """Measure `steps` steps of each variant a round, after `warm` that do not count and one more, whose memory does.

    On a GPU one more step of each turn does not count, since the memory of a turn is given back after it.

    Args:
        shared: what every variant is given.
        device: where the variants compute: cpu or cuda.
        abreast: variants that take long to warm up without computing, such as those that compile; they do so while the
            others warm up.
        environments: variables with which the processes of some variants begin.
    """
    workers: dict[str, _Worker] = {}
    try:
        for name, variant in variants.items():
            environment = (environments or {}).get(name, {})
            workers[name] = _Worker(name, variant, shared, threads, device, environment)
        slow = [worker for name, worker in workers.items() if name in abreast]
        for worker in slow:
            worker.ask(warm)
        for worker in workers.values():
            if worker not in slow:
                worker.turn(warm)
        for worker in slow:
            worker.answer()
        for worker in workers.values():
            worker.turn(1, reset=True)
            worker.measured.wall, worker.measured.cpu = [], []
        for i in range(rounds):
            for worker in workers.values() if i % 2 == 0 else reversed(workers.values()):
                worker.turn(steps)
    finally:
        deadline = time.monotonic() + GRACE
        for worker in workers.values():
            worker.finish()
        for worker in workers.values():
            worker.stop(deadline)
    return {name: worker.measured for name, worker in workers.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """The median, the smallest and the largest of the rounds' ratios."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(found), min(found), max(found)


def told(found: tuple[float, float, float]) -> str:
    """A ratio with its spread."""
    return f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


def machine(threads: int) -> dict[str, Any]:
    """The processor and the versions that the figures are of."""
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
    """Print what is measured on which processor, and return the latter."""
    here = machine(threads)
    print(
        f"{what}\n{here['processor']}, {here['cores']} cores, {threads} thread(s), torch {here['torch']} "
        f"({here['vectors']}), load {here['load']:.1f}; {rounds} round{'s' * (rounds > 1)} in turns: medians, and "
        f"[smallest, largest]\n"
        f"float32 products by {'oneDNN' if here['float32 products by oneDNN'] else 'MKL, as torch has it'}",
        flush=True,
    )
    return here


def introduced_card(what: str, threads: int, rounds: int) -> dict[str, Any]:
    """Print what is measured on which GPU, and return the latter."""
    here = machine(threads) | {"gpu": torch.cuda.get_device_name()}
    print(
        f"{what}\n{here['gpu']}; {here['processor']}, {here['cores']} cores, {threads} thread(s), "
        f"torch {here['torch']}; {rounds} round{'s' * (rounds > 1)} in turns: medians, and [smallest, largest]",
        flush=True,
    )
    return here


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Package → its version; those that are not installed are left out."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def keep(path: Path | None, name: str, content: Mapping[str, Any]) -> None:
    """Write the figures of one part into a file of JSON, beside those of the other parts that are in it."""
    if path is None:
        return
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | {name: content}, indent=2, sort_keys=True) + "\n")
