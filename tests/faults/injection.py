"""Count the file operations below a folder, and let one of them fail, or kill the process in its midst.

An operation is a write that reaches a file, the creation of a file or folder, a truncation, an fsync, a rename or a
hard link. Python's own buffers stay as they are: a write is counted where it leaves them.
"""

from __future__ import annotations

import _pyio
import builtins
import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

MODES = ("ENOSPC", "EIO", "partial", "kill")
"""A disk that stays full, one failure, half of the bytes and then a full disk, half of the bytes and then SIGKILL."""
_CREATES = os.O_CREAT


@dataclass(frozen=True)
class Operation:
    """An operation on a file: the `number`-th of its kind, from 1."""

    kind: str
    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.number} of {self.file}"


@dataclass
class Faults:
    """Operations below `folder` so far.

    Args:
        folder: operations elsewhere are not counted.
        at: the operation that fails, or None to count only.
        mode: one of MODES.
        report: a file descriptor that hears of the operation before a kill.
    """

    folder: str
    at: Operation | None = None
    mode: str = "EIO"
    report: int | None = None
    operations: list[Operation] = field(default_factory=list)
    hit: bool = False
    _numbers: Counter[tuple[str, str]] = field(default_factory=Counter)

    def covers(self, path: str) -> bool:
        return path.startswith(self.folder + os.sep)

    def meet(self, kind: str, path: str, write_half: Callable[[], int] | None = None) -> int | None:
        """Count an operation on `path`, which succeeds, fails or never returns.

        Returns:
            How many bytes a partial write has written; None where the operation is still to be done.
        """
        file = name_of(path)
        self._numbers[kind, file] += 1
        operation = Operation(kind, file, self._numbers[kind, file])
        self.operations.append(operation)
        if operation == self.at:
            self.hit = True
            written = write_half() if write_half is not None and self.mode in ("partial", "kill") else 0
            if self.mode == "kill":
                if self.report is not None:
                    _real_write(self.report, str(operation).encode())
                os.kill(os.getpid(), signal.SIGKILL)
            if written:
                return written
        elif not self.hit or self.mode == "EIO":
            return None
        number = errno.EIO if self.mode == "EIO" else errno.ENOSPC
        raise OSError(number, os.strerror(number), path)


def name_of(path: str) -> str:
    """The name of a file without the part that differs between runs: `.run.json.k3x8_f.tmp` is run.json."""
    name = os.path.basename(path).removesuffix(".tmp")  # noqa: PTH119
    for pattern, short in _NAMES.items():
        if re.fullmatch(pattern, name):
            return short
    return name[1:].rpartition(".")[0] if name.count(".") > 1 and name.startswith(".") else name


_NAMES = {
    r"\.?events\.out\.tfevents.*": "events",
    r"\.lock|[0-9a-f]{20}\.lock": "a lock",
    r"\.?[0-9a-f]{20}(\.\w+)?": "the cache's folder",
    r".*-seed\d+.*": "the run's folder",
    r"\.write-\d+": "the probe",
}


@contextmanager
def inject(folder: Path, at: Operation | None = None, mode: str = "EIO", report: int | None = None) -> Iterator[Faults]:
    """Count what happens below `folder`, and let the operation `at` fail."""
    faults = Faults(os.path.realpath(folder), at, mode, report)

    class File(io.FileIO):
        path = ""

        def write(self, data: Any) -> int:
            def half() -> int:
                return io.FileIO.write(self, bytes(data)[: len(data) // 2]) or 0

            written = faults.meet("write", self.path, half)
            return super().write(data) if written is None else written

        def truncate(self, size: int | None = None) -> int:
            faults.meet("truncate", self.path)
            return super().truncate(size)

    def open_file(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        path = _path_of(file)
        if not faults.covers(path) or not set(mode) & set("wax+"):
            return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not os.path.exists(path):  # noqa: PTH110
            faults.meet("open", path)
        raw = File(file, "".join(set(mode) - set("bt")), closefd, opener)
        raw.path = path
        if buffering == 0:
            return raw
        buffer: Any = _Random(raw) if "+" in mode else _Writer(raw)
        if "b" in mode:
            return buffer
        return io.TextIOWrapper(buffer, io.text_encoding(encoding), errors, newline, line_buffering=buffering == 1)

    def open_descriptor(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is None and flags & _CREATES and faults.covers(_path_of(path)) and not os.path.exists(path):  # noqa: PTH110
            faults.meet("open", _path_of(path))
        return _real_os_open(path, flags, mode, dir_fd=dir_fd)

    def write(descriptor: int, data: Any) -> int:
        path = _path_of(descriptor)
        written = None
        if faults.covers(path):
            written = faults.meet("write", path, lambda: _real_write(descriptor, bytes(data)[: len(data) // 2]))
        return _real_write(descriptor, data) if written is None else written

    def watched(kind: str, real: Callable[..., Any], target: int) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            path = _path_of(arguments[target])
            if faults.covers(path) and not (kind == "mkdir" and os.path.isdir(path)):  # noqa: PTH112
                faults.meet(kind, path)
            return real(*arguments, **options)

        return operation

    replacements = [
        (builtins, "open", open_file),
        (io, "open", open_file),
        (os, "open", open_descriptor),
        (os, "write", write),
        (os, "fsync", watched("fsync", os.fsync, 0)),
        (os, "truncate", watched("truncate", os.truncate, 0)),
        (os, "ftruncate", watched("truncate", os.ftruncate, 0)),
        (os, "rename", watched("rename", os.rename, 1)),
        (os, "replace", watched("rename", os.replace, 1)),
        (os, "link", watched("link", os.link, 1)),
        (os, "mkdir", watched("mkdir", os.mkdir, 0)),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in replacements:
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield faults


class _Writer(_pyio.BufferedWriter):
    """No io.BufferedWriter, whose bytes numpy writes past Python."""

    def __del__(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.close()


class _Random(_pyio.BufferedRandom):
    __del__ = _Writer.__del__


def _path_of(file: Any) -> str:
    """The absolute path of a path or of an open descriptor; empty where it has none."""
    if not isinstance(file, int):
        path = os.path.abspath(os.fsdecode(file))  # noqa: PTH100
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))  # noqa: PTH118, PTH119, PTH120
    try:
        if sys.platform == "linux":
            return os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
        import fcntl

        return os.fsdecode(fcntl.fcntl(file, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    except (OSError, AttributeError):
        return ""


_real_open, _real_os_open, _real_write = io.open, os.open, os.write
