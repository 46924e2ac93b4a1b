"""Locks that say which process holds a run. The kernel frees a lock when its process dies, however that happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from losslab.errors import Held, UserError

LOCK = ".lock"
_PATIENCE = 1.0
"""Seconds in which a process that only looks whether a run is held has let go again."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run's folder. The kernel frees the lock when the process dies, however it dies."""
    held = FileLock(_lock_file(folder))
    try:
        held.acquire(timeout=_PATIENCE)
    except Timeout:
        raise Held(f"{folder} is already running in another process; wait for it, or give another name=…") from None
    try:
        yield
    finally:
        held.release()


def _lock_file(folder: Path) -> Path:
    if (folder / LOCK).is_symlink():  # opening it for locking would empty what it points at
        raise UserError(f"{folder / LOCK} is a symbolic link, which losslab never makes: refused")
    return folder / LOCK


def is_locked(folder: Path) -> bool:
    """Whether a living process holds this run."""
    if not (folder / LOCK).exists():
        return False
    probe = FileLock(_lock_file(folder))
    try:
        probe.acquire(timeout=0)
    except Timeout:
        return True
    except PermissionError:  # somebody else's run, on which only its owner can say more
        return False
    probe.release()
    return False
