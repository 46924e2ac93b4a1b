"""Texts in memory for functions that read texts from the disk, and the pieces that they become."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from losslab.data.documents import Cut
from losslab.data.pieces import Documents, Pieces
from losslab.data.stored_text import StoredText


@dataclass(frozen=True)
class Held:
    """Bytes in memory."""

    content: bytes

    def read_bytes(self, start: int, stop: int) -> bytes:
        return self.content[start:stop]


def held(text: str) -> StoredText:
    content = text.encode()
    return StoredText(Held(content), 0, len(content))


def pieces_of(groups: Sequence[Sequence[str]]) -> Pieces:
    """Pieces in their groups."""
    pieces = Pieces()
    for group in groups:
        places, at = [], 0
        for piece in group:
            places.append((at, at + len(piece.encode()), piece))
            at = places[-1][1]
        pieces.add(held("".join(group)), iter(places))
    return pieces


class ListedCut(NamedTuple):
    """A cut, read."""

    groups: list[list[str]]
    known: bool
    how: str

    @property
    def pieces(self) -> list[str]:
        return [piece for group in self.groups for piece in group]


def listed(cut: Cut) -> ListedCut:
    pieces, ends = list(Documents(cut.pieces)), cut.pieces.groups.ends.tolist()
    groups = [pieces[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]
    return ListedCut(groups, cut.known, cut.how)
