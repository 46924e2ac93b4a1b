"""Folders of arrays under a hash of all that decides them. Parallel processes build each once; damage is found."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from losslab.data.stamps import stamp_of
from losslab.files import TEMPORARY, sync_folder, write_atomic

T = TypeVar("T")
DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError)
META = "meta.json"
_VERIFIED = "verified.json"
_KEY_DIGITS = 20
_PART = 2**22
"""Entries of an array that are read together."""
_HEADER = 128
"""Bytes of an .npy file without entries."""


def key_of(settings: dict[str, Any]) -> str:
    """The name of the folder for these settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]


def read_meta(folder: Path) -> dict[str, Any]:
    """The description that `write_meta` wrote, once all files are what they were then.

    Every file is read for that when a folder is opened first, and again when the stamp of one has changed. Each write
    changes it, so that only bits that go wrong on the disk itself are not seen.

    Raises:
        One of DAMAGED, where a file is missing or is not what it was.
    """
    meta: dict[str, Any] = json.loads((folder / META).read_text())
    names = sorted(meta["checksums"])
    stamps = json.dumps([stamp_of(folder / name) for name in (META, *names)])
    if _verified(folder) == stamps:
        return meta
    for name in names:
        if checksum(folder / name) != meta["checksums"][name]:
            raise ValueError(f"{folder / name} is damaged")
    with suppress(OSError):  # a cache that may only be read is verified each time
        write_atomic(folder / _VERIFIED, stamps.encode())
    return meta


def _verified(folder: Path) -> str:
    """The stamps of files that were found undamaged."""
    try:
        return (folder / _VERIFIED).read_text()
    except (OSError, ValueError):
        return ""


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Finish a folder: its description, with checksums of its files, all of them on the disk; hidden files, which only
    its making needed, are removed."""
    checksums = {path.name: checksum(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    (folder / META).write_text(json.dumps({**meta, "checksums": checksums}, indent=2))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for path in folder.glob(".*"):
        path.unlink()
    sync_folder(folder)


def open_or_build(
    folder: Path, opened: Callable[[Path], T], write: Callable[[Path], None], *, resumes: bool = False
) -> T:
    """Open a folder, or write it: beside its place, then renamed, under a lock, which the kernel frees when the process
    that holds it dies.

    Args:
        opened: raises one of DAMAGED for a folder that is missing or damaged.
        write: fills an empty folder, and ends with `write_meta`.
        resumes: `write` also takes the folder that a killed or interrupted process has left half filled.
    """
    root = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{folder.name}.lock"):
        try:
            return opened(folder)
        except DAMAGED:
            shutil.rmtree(folder, ignore_errors=True)
        temporary = root / f".{folder.name}{TEMPORARY}"
        if not resumes:
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(exist_ok=True)
        try:
            write(temporary)
            temporary.rename(folder)
            sync_folder(root)
        except Exception:
            # Whatever `write` raises goes on to the caller. A Ctrl-C or a kill leaves the folder, which the next call
            # continues or begins again.
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return opened(folder)


class Growing:
    """An .npy file to append to: memory holds no more than what is appended at once."""

    def __init__(self, file: BinaryIO, dtype: Any, count: int) -> None:
        self.count = count
        """Entries in the file."""
        self._file = file
        self._dtype = np.dtype(dtype)

    def append(self, array: NDArray[Any]) -> None:
        self.count += len(array)
        self._file.write(array.astype(self._dtype, copy=False).tobytes())

    def sync(self) -> None:
        """Wait until all that was appended is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def write_header(self) -> None:
        shape = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.count,)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, shape)
        assert self._file.tell() == _HEADER, "numpy pads headers so that the first axis can grow"


@contextmanager
def growing(path: Path, dtype: Any, *, kept: int = 0) -> Iterator[Growing]:
    """A new .npy file, or one that grows on behind its first `kept` bytes of entries."""
    with path.open("r+b" if kept else "wb") as file:
        array = Growing(file, dtype, kept // np.dtype(dtype).itemsize)
        array.write_header()
        file.truncate(_HEADER + kept)
        file.seek(0, os.SEEK_END)
        yield array
        array.write_header()


def map_array(path: Path) -> NDArray[Any]:
    """Map an .npy file; one without entries, which cannot be mapped, is read."""
    array: NDArray[Any] = np.load(path, mmap_mode="r" if path.stat().st_size > _HEADER else None)
    return array


def read_parts(path: Path) -> Iterator[NDArray[Any]]:
    """The entries of an .npy file in parts. (Pages of a map count as memory of the process once they are touched.)"""
    whole = map_array(path)
    for start in range(0, len(whole), _PART):
        yield np.fromfile(path, whole.dtype, min(_PART, len(whole) - start), offset=_HEADER + start * whole.itemsize)


def checksum(path: Path, start: int = 0, size: int | None = None) -> int:
    """CRC-32 of a file, or of `size` bytes of entries of an .npy file from `start`: against torn writes and bad disks,
    not against people."""
    found = 0
    with path.open("rb") as file:
        if size is not None:
            file.seek(_HEADER + start)
        left = math.inf if size is None else size
        while block := file.read(int(min(2**22, left))):
            found = zlib.crc32(block, found)
            left -= len(block)
    return found
