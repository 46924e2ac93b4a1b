"""Translations in a file: lines or pairs, with a description beside them, and a way on for what was cut short."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from losslab.data.written_targets import DESCRIPTION
from losslab.errors import UserError
from losslab.files import write_atomic

PAIRS = ".jsonl"
"""Ends the name of a file of pairs."""
_PART = ".part"


class TranslatedFile:
    """A file that is written in parts, under another name until it is whole. A command that is typed again goes on
    behind the lines that are there.

    Args:
        path: the file; `.jsonl` holds an object a line, source and translation, any other a translation a line.
        about: plain values that decide every line; a part that has others is written again.
        columns: names of source and translation in the objects.

    Raises:
        UserError: where the file exists, or its folder does not.
    """

    def __init__(self, path: Path, about: dict[str, Any], columns: tuple[str, str]) -> None:
        self.path = path
        self.about = about
        self.columns = columns
        self.part = path.with_name(path.name + _PART)
        self.about_file = path.with_name(path.name + DESCRIPTION)
        self._about_part = path.with_name(path.name + _PART + DESCRIPTION)
        if path.exists():
            raise UserError(f"--to {path} is there already: move it away, or name another file")
        if not path.parent.is_dir():
            raise UserError(f"--to {path} cannot be written: there is no folder {path.parent}")

    def write(self, sources: Iterable[str], block: int, translate: Callable[[list[str]], list[str]]) -> int:
        """Write a line for each source, `block` of them at a time. Returns the number of lines that are empty.

        Raises:
            UserError: where the file cannot be written.
        """
        left = iter(sources)
        with self._opened() as (file, done):
            _skip(left, done)
            while part := list(islice(left, block)):
                file.write("".join(map(self._line, part, translate(part))).encode())
                file.flush()
            return self._finish(file)

    @contextmanager
    def _opened(self) -> Iterator[tuple[BinaryIO, int]]:
        """The part, and how many whole lines it has."""
        try:
            stored = self._about_part.read_bytes() if self.part.exists() else None
            own = json.dumps(self.about).encode()
            if stored != own:
                self.part.write_bytes(b"")
                write_atomic(self._about_part, own)
            with self.part.open("r+b") as file:
                content = file.read()
                file.truncate(file.seek(content.rfind(b"\n") + 1))
                yield file, content.count(b"\n")
        except OSError as error:
            raise UserError(f"--to {self.path} cannot be written: {error.strerror}") from None

    def _line(self, source: str, translation: str) -> str:
        if self.path.suffix.lower() != PAIRS:
            return f"{translation}\n"
        return json.dumps(dict(zip(self.columns, (source, translation), strict=True)), ensure_ascii=False) + "\n"

    def _translation(self, line: bytes) -> str:
        text = line.decode().removesuffix("\n")
        return str(json.loads(text)[self.columns[1]]) if self.path.suffix.lower() == PAIRS else text

    def _finish(self, file: BinaryIO) -> int:
        """Give the part its name, and describe it."""
        file.seek(0)
        lines, empty, digest = 0, 0, hashlib.sha256()
        for line in file:
            digest.update(line)
            lines += 1
            empty += not self._translation(line)
        told = {**self.about, "lines": lines, "empty": empty, "sha256": digest.hexdigest()}
        write_atomic(self.about_file, (json.dumps(told, indent=1) + "\n").encode())
        self.part.replace(self.path)
        self._about_part.unlink(missing_ok=True)
        return empty


def _skip(lines: Iterator[str], count: int) -> None:
    for _ in islice(lines, count):
        pass
