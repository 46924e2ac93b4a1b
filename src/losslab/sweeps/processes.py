"""End processes that do not end by themselves. No torch here."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def end_group(leader: int) -> None:
    """SIGKILL for what is left of a process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def end_tree(root: int) -> None:
    """SIGKILL for a process, its children and theirs, in whatever sessions and groups they are: torchrun and its ranks
    have their own."""
    for pid in _descendants(root):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    end_group(root)


def _descendants(root: int) -> list[int]:
    parents = _parents()
    found = [root]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found


def _parents() -> dict[int, int]:
    """Process → its parent."""
    if not (_PROC / "self" / "stat").exists():
        listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        return {int(pid): int(parent) for pid, parent in map(str.split, listing.splitlines())}
    parents = {}
    for path in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return parents
