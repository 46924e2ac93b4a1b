"""The files of a person's text: which ones a path names, which of those are left out and why, and what each holds."""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import os
import re
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from losslab.data.stored_text import WINDOW, NotUtf8, StoredText
from losslab.errors import UserError

SUFFIXES = (".txt", ".md", ".tokens", ".gz")
"""Taken out of folders, in upper case too; `.gz` unless it packs an archive or a structured file."""
_STRUCTURED = frozenset(
    ".json .jsonl .ndjson .csv .tsv .parquet .arrow .feather .orc .avro .xls .xlsx .ods .pkl .pickle .npy .npz .pt "
    ".pth .h5 .hdf5 .db .sqlite .safetensors".split()
)
_ARCHIVES = frozenset(".zip .tar .tgz .tbz .tbz2 .txz .bz2 .xz .zst .lz4 .7z .rar .z".split())
_FORMATTED = frozenset(".pdf .doc .docx .odt .rtf .epub .mobi .ps .djvu".split())
_KINDS = {"structured": _STRUCTURED, "archive": _ARCHIVES, "formatted": _FORMATTED}
_WAY_OUT = {
    "structured": "holds records and no plain text: for task=lm, write its column of text to a .txt file, with a line "
    "such as <|endoftext|> between the documents; a task of rows (task=classification) reads .csv with data=csv, "
    ".jsonl with data=jsonl and .parquet with data=parquet",
    "archive": "is an archive: unpack it, and give data.path the folder",
    "formatted": "holds formatted pages and no plain text: convert it to .txt (pandoc and pdftotext do that)",
}
_MAGIC = {
    b"PK\x03\x04": "it is a zip archive",
    b"\x1f\x8b": "it is packed with gzip: give it a name that ends in .gz",
    b"BZh": "it is packed with bzip2",
    b"\xfd7zXZ\x00": "it is packed with xz",
    b"\x28\xb5\x2f\xfd": "it is packed with zstd",
    b"PAR1": "it is a parquet table",
    b"%PDF": "it is a PDF document",
    b"\xff\xfe": "it looks like UTF-16",
    b"\xfe\xff": "it looks like UTF-16",
}
_WIKITEXT_RAW = re.compile(r"wiki\.\w+\.raw", re.IGNORECASE)
_TAR = (257, b"ustar")
"""Offset and content of a tar archive's signature."""
_IN_MEMORY = 2**24
"""Bytes."""
_TEXT_PER_ZERO = 1000
"""Text may hold a stray zero character; more than one in so many is a binary file or UTF-16 without its mark."""


@dataclass
class Found:
    """The files that a path names."""

    files: list[Path]
    """Sorted by path."""
    left_out: Counter[str] = field(default_factory=Counter)
    """`.jsonl (structured)`, `hidden`, … → how many."""
    root: Path | None = None
    """The folder, where the path is one."""


def find_files(path: str, key: str = "data.path") -> Found:
    """The files that FILE, DIR or GLOB names.

    Links are followed, those of folders too; a file that is reached twice counts once.

    Args:
        key: what to call the path in a message.

    Raises:
        UserError: when there are none, or when the one that is named is an archive or a structured file.
    """
    if not path.strip():
        raise UserError(f"{key} is empty: {key}=FILE|DIR|GLOB (an unset variable of the shell, perhaps)")
    try:
        return _find(path, Path(path).expanduser(), key)
    except (OSError, RuntimeError) as error:  # a name too long, a home of nobody's
        raise UserError(f"{key}={path} cannot be opened: {error}") from None


def _find(path: str, expanded: Path, key: str) -> Found:
    if expanded.is_file():
        kind, suffix = kind_of(expanded)
        if kind in _WAY_OUT:
            raise UserError(f"{key}={path} ({suffix}) {_WAY_OUT[kind]}")
        return Found([expanded])
    if expanded.is_dir():
        found = _sort_out(_walk(expanded), Found([], root=expanded), only_text=True)
        if not found.files:
            raise UserError(f"{key}={path} is a folder without {', '.join(SUFFIXES)} files{_instead(found)}")
        return found
    named = [Path(p) for p in glob.glob(str(expanded), recursive=True)]  # noqa: PTH207
    found = _sort_out(iter(named), Found([]), only_text=False)
    if not found.files:
        raise UserError(f"{key}={path} does not exist" if not found.left_out else f"{key}={path}{_instead(found)}")
    return found


def _instead(found: Found) -> str:
    """The rest of a sentence: which files lie there, and what to do with them."""
    if not found.left_out:
        return ""
    kinds = [kind for kind in _WAY_OUT if any(f"({kind})" in reason for reason in found.left_out)]
    ways = "".join(f"; what is {kind} {_WAY_OUT[kind]}" for kind in kinds)
    return f": it holds {told(found.left_out)}{ways}"


def told(left_out: Counter[str]) -> str:
    """`2 .jsonl (structured), 1 hidden`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())


def _raise(error: OSError) -> None:
    """A folder that cannot be opened is no folder without text."""
    raise error


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, through links too, each folder once; of what is hidden only the topmost name."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        if (real := os.path.realpath(place)) in seen:  # a link into a folder above it, or a second way into this one
            folders[:] = []
            continue
        seen.add(real)
        yield from (Path(place, name) for name in [*names, *(name for name in folders if name.startswith("."))])
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _sort_out(paths: Iterator[Path], found: Found, *, only_text: bool) -> Found:
    """Take the files that are text; a glob's word is taken for what has no telling suffix."""
    seen: set[str] = set()
    for path in sorted(paths):
        if path.name.startswith(".") and only_text:
            found.left_out["hidden"] += 1
            continue
        if path.is_dir():
            continue
        if not path.is_file():
            found.left_out["broken link"] += 1
            continue
        kind, suffix = kind_of(path)
        if kind in _WAY_OUT:
            found.left_out[f"{suffix} ({kind})"] += 1
        elif kind == "other" and only_text:
            found.left_out[suffix or "without a suffix"] += 1
        elif (real := os.path.realpath(path)) in seen:
            found.left_out["second link to the same file"] += 1
        else:
            seen.add(real)
            found.files.append(path)
    return found


def kind_of(path: Path) -> tuple[str, str]:
    """text, structured, archive, formatted or other; and the suffix that says so, with that of a packed file."""
    *_, suffix = path.suffixes[-1:] or [""]
    suffix = suffix.lower()
    if suffix == ".gz":
        inner = path.with_suffix("").suffix.lower()
        for kind, suffixes in _KINDS.items():
            if inner in suffixes:
                return kind, f"{inner}.gz"
        return "text", suffix
    for kind, suffixes in _KINDS.items():
        if suffix in suffixes:
            return kind, suffix
    return ("text" if suffix in SUFFIXES or _WIKITEXT_RAW.fullmatch(path.name) else "other"), suffix


@dataclass(frozen=True)
class FileText:
    """A file that was read once."""

    text: StoredText
    characters: int
    blank: bool
    """It holds nothing but white space."""
    digest: bytes
    """SHA-256 of its text."""


def read_file(path: Path, unpacked: Spool) -> FileText:
    """Read a file once, a window at a time.

    Args:
        unpacked: takes the content of a file that is packed (.gz).

    Raises:
        UserError: when it is not UTF-8, or binary.
    """
    try:
        text = _unpack(path, unpacked) if path.suffix.lower() == ".gz" else StoredText(path, 0, path.stat().st_size)
        start = text.read_bytes(text.start, min(text.stop, text.start + _TAR[0] + len(_TAR[1])))
        if start[_TAR[0] :] == _TAR[1]:
            raise UserError(f"{path} {_WAY_OUT['archive']}")
        hint = next((hint for magic, hint in _MAGIC.items() if start.startswith(magic)), "convert it first")
        if start.startswith(codecs.BOM_UTF8):
            text = text.part(len(codecs.BOM_UTF8), text.size)
        characters, zeros, blank, digest = 0, 0, True, hashlib.sha256()
        for window in text.windows():
            characters += len(window)
            zeros += window.count("\0")
            blank = blank and not window.strip()
            digest.update(window.encode())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except NotUtf8 as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.place} cannot be read; {hint}") from None
    if zeros * _TEXT_PER_ZERO > characters:
        raise UserError(f"{path} is no text: {zeros:,} of its characters are zeros, as in binary files; {hint}")
    return FileText(text, characters, blank, digest.digest())


class Spool:
    """The unpacked content of packed files: in memory if it is small, else in a file without a name."""

    def __init__(self) -> None:
        self._file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115

    def take(self, content: BinaryIO) -> StoredText:
        """Read `content` to its end, and keep it."""
        first = self._file.seek(0, os.SEEK_END)
        shutil.copyfileobj(content, self._file, WINDOW)
        return StoredText(self, first, self._file.tell())

    def read_bytes(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        return self._file.read(stop - start)

    def __del__(self) -> None:
        self._file.close()


def _unpack(path: Path, unpacked: Spool) -> StoredText:
    with gzip.open(path) as content:
        return unpacked.take(cast(BinaryIO, content))
