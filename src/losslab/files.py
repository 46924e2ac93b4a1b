"""Files that a kill or a full disk cannot leave half written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""Ends the names of files that a kill may leave half written; `losslab clean` removes them."""
_UMASK = os.umask(0o022)
os.umask(_UMASK)  # it can only be read by setting it


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write beside the target, fsync, rename: a kill leaves the old file or the new one, never half of one."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Failed writes and flushes do not say of which file; now they do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, to be written piece by piece; it takes the name at the end of the block, once it is on
    the disk. After an exception `path` is what it was."""
    with naming(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        os.close(descriptor)
        temporary = Path(name)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_UMASK)
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:  # a Ctrl-C too must leave no half of a file behind; it is raised again
            temporary.unlink(missing_ok=True)
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
