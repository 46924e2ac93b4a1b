"""Texts on disk, read a window at a time: memory holds no more than that of any of them."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from losslab.errors import UserError

WINDOW = 2**22
"""Bytes that are read together."""
_CHARACTERS = 2**20
"""Characters that are encoded together."""
_LINE_ENDS = b"\r\n"

Cut = Callable[[str, bool, bool], tuple[list[tuple[int, int]], int]]
"""Takes what is left of a text up to now, whether that is its beginning, and whether nothing follows. Returns the first
character and the end of each piece that is settled, and how many characters are done with."""


class NotUtf8(Exception):
    """Bytes that are no UTF-8; `place` is the number of the first of them."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class Unpacked(Protocol):
    """Bytes that lie in no file of their own."""

    def read_bytes(self, start: int, stop: int) -> bytes: ...


@dataclass(frozen=True)
class StoredText:
    """The bytes from `start` to `stop` of a UTF-8 file."""

    source: Path | Unpacked
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def read_bytes(self, start: int, stop: int) -> bytes:
        """Bytes of the file. Raises UserError where it has become shorter."""
        if isinstance(self.source, Path):
            with self.source.open("rb") as file:
                file.seek(start)
                content = file.read(stop - start)
        else:
            content = self.source.read_bytes(start, stop)
        if len(content) < stop - start:
            raise UserError(f"{self.source} was cut off while it was read: start again once it lies still")
        return content

    def read(self) -> str:
        """The whole text."""
        return self.read_bytes(self.start, self.stop).decode()

    def windows(self) -> Iterator[str]:
        """The text in parts. Raises NotUtf8."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        for at in range(self.start, self.stop, WINDOW):
            begun = len(decoder.getstate()[0])
            try:
                yield decoder.decode(self.read_bytes(at, min(at + WINDOW, self.stop)), at + WINDOW >= self.stop)
            except UnicodeDecodeError as error:
                raise NotUtf8(at - self.start - begun + error.start) from None

    def part(self, start: int, stop: int) -> StoredText:
        """The bytes from `start` to `stop` of this text."""
        return StoredText(self.source, self.start + start, self.start + stop)

    def is_blank(self) -> bool:
        """It holds nothing but white space."""
        return not any(window.strip() for window in self.windows())

    def without_line_ends(self) -> StoredText:
        """This text without the ends of lines, and empty lines, before and behind it."""
        start, stop = self.start, self.stop
        while start < stop:
            content = self.read_bytes(start, min(start + WINDOW, stop))
            start += len(content) - len(content.lstrip(_LINE_ENDS))
            if content.strip(_LINE_ENDS):
                break
        while start < stop:
            content = self.read_bytes(max(start, stop - WINDOW), stop)
            stop -= len(content) - len(content.rstrip(_LINE_ENDS))
            if content.strip(_LINE_ENDS):
                break
        return StoredText(self.source, start, stop)

    def feed(self, digest: hashlib._Hash) -> None:
        """Hash the size of the text, and the text."""
        digest.update(self.size.to_bytes(8, "little"))
        for at in range(self.start, self.stop, WINDOW):
            digest.update(self.read_bytes(at, min(at + WINDOW, self.stop)))

    def count_words(self) -> int:
        """`losslab.data.words.count_words` of the whole text."""
        words = lines = 0
        last = " "
        for window in self.windows():
            if window:
                words += len(window.split()) - (not last.isspace() and not window[0].isspace())
                lines += window.count("\n")
                last = window[-1]
        return words + lines + (self.size > 0 and last != "\n")

    def pieces(self, cut: Cut, *, whole: bool = False) -> Iterator[tuple[int, int, str]]:
        """The first byte, the end and the content of each piece.

        Args:
            whole: `cut` must see the text at once.
        """
        at, waiting, length, rest = 0, [""], 0, 0
        for window, last in _with_last(iter([self.read()]) if whole else self.windows()):
            waiting.append(window)
            length += len(window)
            if length < 2 * rest and not last:  # a long piece is not looked through again for each window
                continue
            buffer = "".join(waiting)
            spans, used = cut(buffer, at == 0, last)
            place = bytes_before(buffer, [used, *(place for span in spans for place in span)])
            for start, stop in spans:
                yield at + place[start], at + place[stop], buffer[start:stop]
            at += place[used]
            waiting, length = [buffer[used:]], len(buffer) - used
            rest = length


def bytes_before(text: str, places: list[int]) -> dict[int, int]:
    """The UTF-8 bytes before each of these characters, in little memory however long the text is."""
    if text.isascii():
        return {place: place for place in places}
    found, at, size = {}, 0, 0
    for place in sorted(places):
        for start in range(at, place, _CHARACTERS):
            size += len(text[start : min(start + _CHARACTERS, place)].encode())
        found[place], at = size, place
    return found


def byte_positions(text: str) -> NDArray[np.int64]:
    """[len(text) + 1]: the UTF-8 bytes before each character."""
    if text.isascii():
        return np.arange(len(text) + 1)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    lengths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(lengths)])


def _with_last(windows: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Each window, and whether it is the last."""
    before: str | None = None
    for window in windows:
        if before is not None:
            yield before, False
        before = window
    if before is not None:
        yield before, True
