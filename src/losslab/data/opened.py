"""Files of rows as text: packed ones unpacked, decoded, and a sentence for each thing that is no text."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from losslab.errors import UserError

PACKED = (".gz", ".zst")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SEEN = 512
"""Bytes of a file's beginning that say whether it is UTF-16 without its mark."""
_MANY_ZEROS = 0.2


def needs(package: str, extra: str, what: str) -> UserError:
    """The sentence for an optional package that is missing."""
    return UserError(f"{what} needs the package {package}: pip install 'losslab[{extra}]'")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """A file, unpacked. What goes wrong in the block is a UserError that names the file."""
    try:
        with _unpacked(path) as content:
            yield content
    except EOFError:
        raise UserError(f"{path} is cut off: its end is missing; fetch or pack it again") from None
    except (OSError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


@contextmanager
def open_text(path: Path, encoding: str, newline: str = "") -> Iterator[io.TextIOBase]:
    """A file as text, its line ends as they are. What goes wrong in the block is a UserError that names the file.

    Args:
        newline: ends a line; default: a newline, a carriage return, or both.
    """
    try:
        with open_bytes(path) as content:
            plain = "utf-8-sig" if _is_utf8(encoding) else encoding
            yield io.TextIOWrapper(content, encoding=plain, newline=newline)
    except UnicodeError:
        raise _no_text(path, encoding) from None


def lines_of(path: Path, file: io.TextIOBase) -> Iterator[str]:
    """The lines of a file with their ends. Raises UserError for one with a NUL byte."""
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise _nul(path, number)
        yield line


def check_not_empty(path: Path) -> None:
    """Raises UserError for a file of zero bytes."""
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes): write it again, or leave it out")


def _unpacked(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    if suffix != ".zst":
        return path.open("rb")
    try:
        import pyarrow
    except ImportError:
        raise needs("pyarrow", "parquet", f"{path} is packed with zstd, which") from None
    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


def _beginning(path: Path) -> bytes:
    with open_bytes(path) as content:
        return content.read(_SEEN)


def _without_mark(start: bytes) -> str | None:
    """The name of UTF-16 without its mark, which in most languages has a zero in every other byte."""
    if start.count(0) < _MANY_ZEROS * len(start):
        return None
    return "utf-16-be" if start[::2].count(0) > start[1::2].count(0) else "utf-16-le"


def _nul(path: Path, number: int) -> UserError:
    if wide := _without_mark(_beginning(path)):
        return UserError(f"{path} looks like UTF-16 text: write data.encoding={wide}")
    return UserError(
        f"{path}: line {number} holds a NUL byte, which no text has: the file is damaged; write it again, or take such "
        "bytes out (tr -d '\\000' <FILE >NEW)"
    )


def _no_text(path: Path, encoding: str) -> UserError:
    start = _beginning(path)
    if start.startswith(_UTF16) and _is_utf8(encoding):
        return UserError(f"{path} is UTF-16 text: write data.encoding=utf-16")
    if wide := _without_mark(start):
        return UserError(f"{path} is no {encoding} text, and looks like UTF-16: write data.encoding={wide}")
    if not _is_utf8(encoding):
        return UserError(f"{path} is no {encoding} text: data.encoding must be the encoding that it was saved in")
    line, byte = _first_bad_line(path)
    return UserError(
        f"{path}: line {line} is not UTF-8 text (byte 0x{byte:02x}): write data.encoding=latin-1 (or cp1252) where "
        "another program saved it for Western languages, else the encoding that it was saved in"
    )


def _first_bad_line(path: Path) -> tuple[int, int]:
    """The number of the first line that is no UTF-8, and its first wrong byte."""
    number = 0
    with open_bytes(path) as content:
        for number, line in enumerate(content, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return number, 0  # the file was changed meanwhile
