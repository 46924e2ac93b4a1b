"""Sharing of a machine among the runs of a sweep. No torch."""

from __future__ import annotations

import os
import platform
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = ".slots"
"""The folder of the locks, below the sweep's folder."""


@dataclass(frozen=True)
class Slot:
    """A part of the machine that serves one run at a time."""

    index: int
    gpus: tuple[str, ...] = ()
    """Names as in CUDA_VISIBLE_DEVICES; none: the run computes on the CPU."""


@dataclass(frozen=True)
class Sharing:
    """The slots, and how many threads each of a run's processes gets, by the run's place in the whole list."""

    slots: tuple[Slot, ...]
    threads: tuple[int, ...]
    each: int
    """Threads that one slot has for each process of its run."""
    devices: int
    """Processes of each run."""
    most: int
    """Threads that compute at once: one a core, or as many as the slots were asked for."""

    def width(self, threads: int) -> int:
        """The number of slots for a run whose processes compute with so many threads."""
        if self.slots[0].gpus:
            return 1
        return max(1, min(len(self.slots), len(self.slots) * threads * self.devices // self.most))

    def slots_text(self) -> str:
        """A few words for people."""
        at_once = "one at a time" if len(self.slots) == 1 else f"{len(self.slots)} at a time"
        if gpus := self.slots[0].gpus:
            used = {gpu for slot in self.slots for gpu in slot.gpus}
            if len(used) < len(gpus) * len(self.slots):
                return f"{at_once}, sharing {_counted(len(used), 'GPU')}"
            return f"{at_once}, on {_counted(len(gpus), 'GPU')} each"
        return f"{at_once}, with {_counted(self.each, 'CPU thread')} each"


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" + ("s" if number > 1 else "")


def share(
    runs: int,
    *,
    cores: int,
    gpus: list[str],
    devices: int,
    wanted: int | None,
    threads: int | None,
) -> Sharing:
    """Share a machine out.

    Small networks compute fastest with one thread each, side by side; what is left over at the end of the list, fewer
    runs than slots, gets all the cores.

    Args:
        runs: in the whole list, done ones included.
        cores: of the machine.
        gpus: that the runs compute on; none: the CPU.
        devices: processes of each run.
        wanted: number of slots; None: as many as there are GPUs for, or cores.
        threads: of each process, where the configuration says so.
    """
    if gpus:
        groups = [tuple(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
        count = wanted or min(len(groups), runs)
        slots = tuple(Slot(i, groups[i % len(groups)]) for i in range(count))
        each = threads or max(1, cores // (count * devices))
        return Sharing(slots, (each,) * runs, each, devices, cores)
    count = wanted or min(runs, max(1, cores // (devices * (threads or 1))))
    left_over = runs % count
    each, last = (max(1, cores // (devices * n)) for n in (count, left_over or count))
    slots = tuple(Slot(i) for i in range(count))
    if threads:
        return Sharing(slots, (threads,) * runs, threads, devices, max(cores, threads * devices * count))
    by_place = (each,) * (runs - left_over) + (last,) * left_over
    return Sharing(slots, by_place, each, devices, max(cores, each * devices * count))


class Slots:
    """Hands slots out, each to one run at a time, of all invocations that share this sweep's folder on this machine.

    Args:
        folder: the sweep's.
    """

    def __init__(self, folder: Path, slots: tuple[Slot, ...]) -> None:
        self._folder = folder / FOLDER
        self._slots = slots
        self._held: dict[int, list[FileLock]] = {}
        self._names: dict[int, list[str]] = {}
        shares: Counter[str] = Counter()
        for slot in slots:  # other invocations may count their slots otherwise, but call a GPU the same
            parts = [f"gpu{gpu}" for gpu in slot.gpus] or ["slot"]
            self._names[slot.index] = [f"{platform.node()}-{part}-{shares[part]}.lock" for part in parts]
            shares.update(parts)

    def take(self, width: int) -> list[Slot]:
        """So many slots that nobody has; none, if there are not as many."""
        taken: list[Slot] = []
        for slot in self._slots:
            if len(taken) < width and slot.index not in self._held and self._lock(slot):
                taken.append(slot)
        if len(taken) < width:
            self.free(taken)
            return []
        return taken

    def has_free(self) -> bool:
        """Whether this invocation has not taken all of them."""
        return len(self._held) < len(self._slots)

    def free(self, slots: list[Slot]) -> None:
        for slot in slots:
            for held in self._held.pop(slot.index):
                held.release()

    def _lock(self, slot: Slot) -> bool:
        self._folder.mkdir(exist_ok=True)
        held: list[FileLock] = []
        try:
            for name in self._names[slot.index]:
                lock = FileLock(self._folder / name)
                lock.acquire(timeout=0)
                held.append(lock)
        except Timeout:
            for lock in held:
                lock.release()
            return False
        self._held[slot.index] = held
        return True


def environment(slots: list[Slot]) -> dict[str, str]:
    """Environment variables of a run in these slots."""
    gpus = [gpu for slot in slots for gpu in slot.gpus]
    return dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
