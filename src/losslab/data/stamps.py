"""Results of reading files, kept under the stamps that the file system gives the files: content is then read once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from losslab.files import write_atomic

HASHES = "hashes.json"
"""The file of the shared cache that keeps what was found."""
_MOST = 1000
"""Entries that are kept, the newest."""
_SETTLED = 2 * 10**9
"""Nanoseconds for which a file must have lain unchanged: two writes within one tick of a clock have the same stamp."""

Stamp = list[str | int]


def stamp_of(path: Path) -> Stamp:
    """Absolute path, size, time of the last write, time of the last change and inode. The time of the last change moves
    with every write, also where a program puts the time of the last write back."""
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def kept(folder: Path | None, files: Iterable[Path], about: Any, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `find`, which reads `files`; where `folder` keeps one of the same stamps, that.

    Args:
        folder: the cache that sweeps share; nothing is kept where it is None or does not exist.
        about: plain values that `find` depends on beside the content of the files.

    Returns:
        Plain values, as json keeps them.
    """
    if folder is None:
        return find()
    files = list(files)
    before = time.time_ns()
    stamps = [stamp_of(path) for path in files]
    key = _hash([stamps, about])
    entries = _read(folder)
    if (entry := entries.get(key)) and entry.get("check") == _hash([key, entry.get("found")]):
        found: dict[str, Any] = entry["found"]
        return found
    found = find()
    settled = all(max(int(stamp[2]), int(stamp[3])) + _SETTLED < before for stamp in stamps)
    if settled and folder.is_dir() and stamps == [stamp_of(path) for path in files]:
        others = {k: v for k, v in _read(folder).items() if k != key}
        newest = dict(list(others.items())[1 - _MOST :]) | {key: {"found": found, "check": _hash([key, found])}}
        with suppress(OSError):  # a short cut, which no run needs
            write_atomic(folder / HASHES, json.dumps(newest).encode())
    return found


def _read(folder: Path) -> dict[str, Any]:
    """Entries by key, the oldest first; none where the file is missing or damaged."""
    try:
        entries = json.loads((folder / HASHES).read_bytes())
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in entries.items() if isinstance(v, dict)} if isinstance(entries, dict) else {}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
