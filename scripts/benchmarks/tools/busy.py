"""The share of a machine's time that a command and all processes under it compute. Linux only."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

TICK = 0.05
"""Seconds between two looks; a process that ends loses at most as much."""
_MOST_OTHERS = 0.1
"""Cores that other programs may take: what is idle goes to them, and the share would say nothing."""
_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Busy(NamedTuple):
    """A sweep: shares are CPU time over that of all cores which other programs left."""

    share: float
    wall: float
    cpu: float
    """Seconds of all processes together, the launcher's and imports included."""
    others: float
    """CPU seconds of other programs, and of the hypervisor's other guests."""
    ready: float
    """The share of the cores for which it had threads that could compute, whether other programs held the cores or
    not."""
    before: tuple[float, float]
    """Seconds until the first step of any run, and the share in them."""
    full: tuple[float, float]
    """From then on, while no slot is empty."""
    after: tuple[float, float]
    """Until the command ends: the last runs."""

    def __str__(self) -> str:
        parts = (("until the first step", self.before), ("while all slots are taken", self.full), ("then", self.after))
        told = ", ".join(f"{what} {share:.1%} of {seconds:.1f} s" for what, (seconds, share) in parts)
        return (
            f"{self.share:.1%} in {self.wall:.1f} s ({told}); threads ready for {self.ready:.1%} of the cores; other "
            f"programs: {self.others:.1f} s of CPU time"
        )

    @property
    def is_disturbed(self) -> bool:
        """Whether other programs computed in much of the time in which this one may have been idle."""
        return self.others > _MOST_OTHERS * self.wall


class Look(NamedTuple):
    """Seconds since 1970, and CPU seconds since the command began."""

    at: float
    ours: float
    others: float
    ready: int
    """Threads that compute, or could."""


def watched(command: list[str], folder: Path, sweep: Path) -> Busy:
    """Run a command that trains a sweep, and look at its processes all the time.

    Args:
        folder: the current one of the command.
        sweep: where its runs will lie, each with a clock.txt of lines "step time …", if any has one.
    """
    cores = os.cpu_count() or 1
    seen: dict[int, float] = {}
    machine = _machine()
    looks = [Look(time.time(), 0.0, 0.0, 1)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(TICK)
        ready = _look(process.pid, seen)
        ours = sum(seen.values())
        looks.append(Look(time.time(), ours, max(0.0, _machine() - machine - ours), ready))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    begun = sorted(float(path.read_text().split()[1]) for path in sweep.glob("*/clock.txt")) or [looks[0].at]
    ended = sorted(path.stat().st_mtime for path in sweep.glob("*/run.json"))
    first, last = begun[0], ended[-cores]  # when the last but one of two ends, a slot is empty

    def part(begin: float, end: float) -> tuple[float, float]:
        inside = [look for look in looks if begin <= look.at <= end]
        return end - begin, _share(inside[0], inside[-1])

    return Busy(
        share=_share(looks[0], looks[-1]),
        wall=looks[-1].at - looks[0].at,
        cpu=looks[-1].ours,
        others=looks[-1].others,
        ready=sum(min(look.ready, cores) for look in looks) / len(looks) / cores,
        before=part(looks[0].at, first),
        full=part(first, last),
        after=part(last, looks[-1].at),
    )


def _share(begin: Look, end: Look) -> float:
    left = (os.cpu_count() or 1) * (end.at - begin.at) - (end.others - begin.others)
    return (end.ours - begin.ours) / max(left, 1e-9)


def _look(pid: int, seen: dict[int, float]) -> int:
    """Note the CPU seconds of a process and of all below it, where those of one that has ended stay as they were;
    returns how many of their threads compute, or could."""
    ready = 0
    try:
        fields = _fields(Path(f"/proc/{pid}/stat"))
        seen[pid] = (int(fields[11]) + int(fields[12])) / _PER_SECOND
        for thread in Path(f"/proc/{pid}/task").iterdir():
            ready += _fields(thread / "stat")[0] == "R"
            for child in (thread / "children").read_text().split():
                ready += _look(int(child), seen)
    except (OSError, IndexError):
        pass  # it has ended
    return ready


def _fields(path: Path) -> list[str]:
    """A stat file of /proc from the state on, which is the third field."""
    return path.read_text().rpartition(")")[2].split()


def _machine() -> float:
    """CPU seconds of all programs since the machine began, and those that the hypervisor gave to others."""
    user, nice, system, _, _, irq, soft, steal = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(ticks) for ticks in (user, nice, system, irq, soft, steal)) / _PER_SECOND
