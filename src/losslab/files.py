"""Files that a kill or a full disk cannot leave half written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp"
"""Ends the names of files that a kill may leave half written; `losslab clean` removes them."""
_UMASK = os.umask(0o022)
os.umask(_UMASK)  # it can only be read by setting it


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write beside the target, fsync, rename: a kill leaves the old file or the new one, never half of one."""
    with naming(path):
        _write_atomic(path, content)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Failed writes and flushes do not say of which file; now they do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def _write_atomic(path: Path, content: bytes | memoryview) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_UMASK)
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except BaseException:  # a Ctrl-C too must leave no half of a file behind; it is raised again
        Path(temporary).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
