"""Folders of arrays under a hash of all that decides them. Parallel processes build each once; damage is found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

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
        if _checksum(folder / name) != meta["checksums"][name]:
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
    """Finish a folder: its description, with checksums of its files, all of them on the disk."""
    checksums = {path.name: _checksum(path) for path in sorted(folder.iterdir())}
    (folder / META).write_text(json.dumps({**meta, "checksums": checksums}, indent=2))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def open_or_build(folder: Path, opened: Callable[[Path], T], write: Callable[[Path], None]) -> T:
    """Open a folder, or write it: beside its place, then renamed, under a lock.

    Args:
        opened: raises one of DAMAGED for a folder that is missing or damaged.
        write: fills an empty folder, and ends with `write_meta`.
    """
    root = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{folder.name}.lock"):
        try:
            return opened(folder)
        except DAMAGED:
            shutil.rmtree(folder, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder.name}.", suffix=TEMPORARY))
        try:
            write(temporary)
            temporary.rename(folder)
            sync_folder(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return opened(folder)


@contextmanager
def growing(path: Path, dtype: Any) -> Iterator[Callable[[NDArray[Any]], None]]:
    """An .npy file to append to: memory holds no more than what is appended at once."""
    count = 0

    def header() -> dict[str, Any]:
        return {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (count,)}

    with path.open("wb") as file:

        def append(array: NDArray[Any]) -> None:
            nonlocal count
            count += len(array)
            file.write(array.astype(dtype, copy=False).tobytes())

        np.lib.format.write_array_header_1_0(file, header())
        size = file.tell()
        yield append
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header())
        assert file.tell() == size, "numpy pads headers so that the first axis can grow"


def map_array(path: Path) -> NDArray[Any]:
    """Map an .npy file; one without entries, which cannot be mapped, is read."""
    array: NDArray[Any] = np.load(path, mmap_mode="r" if path.stat().st_size > _HEADER else None)
    return array


def _checksum(path: Path) -> int:
    """CRC-32 of a file: against torn writes and bad disks, not against people."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            checksum = zlib.crc32(block, checksum)
    return checksum
