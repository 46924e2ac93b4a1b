"""The characters that tokens stand for, and the tokens that cover an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from losslab.data.tokenizer import FileTokenizer, Tokenizer

_BATCH = 512


class Located(NamedTuple):
    """A text's tokens."""

    ids: NDArray[np.int32]
    """[T]."""
    offsets: NDArray[np.int32]
    """[T, 2]: the first character of each, and the one behind its last, without white space at its ends; a character
    whose bytes stand in several tokens belongs to each of them. Equal numbers of a token without a character."""


def located(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[Located]:
    """The tokens of texts, without ends of text."""
    for start in range(0, len(texts), _BATCH):
        part = list(texts[start : start + _BATCH])
        if isinstance(tokenizer, FileTokenizer):
            for text, encoding in zip(part, tokenizer.encodings(part), strict=True):
                offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
                yield Located(np.array(encoding.ids, dtype=np.int32), _trimmed(text, offsets))
        else:
            for text, (ids, _) in zip(part, tokenizer.encode(part), strict=True):
                yield Located(np.array(ids, dtype=np.int32), _trimmed(text, _of_bytes(text)))


def _of_bytes(text: str) -> NDArray[np.int32]:
    """[T, 2] for one token a byte."""
    content = np.frombuffer(text.encode(), dtype=np.uint8)
    first = ((content & 0xC0) != 0x80).cumsum() - 1
    return np.stack([first, first + 1], axis=1).astype(np.int32)


def _trimmed(text: str, offsets: NDArray[np.int32]) -> NDArray[np.int32]:
    """Offsets without white space: byte-level tokens begin with the space before their word."""
    space = np.array([character.isspace() for character in text] + [False], dtype=bool)
    begin, end = offsets[:, 0].copy(), offsets[:, 1].copy()
    while (more := (begin < end) & space[begin]).any():
        begin[more] += 1
    while (more := (begin < end) & space[end - 1]).any():
        end[more] -= 1
    return np.stack([begin, end], axis=1)


def covering(offsets: NDArray[np.int32], begin: int, end: int) -> tuple[int, int] | None:
    """The first and the last token of the fewest that hold the characters from `begin` up to `end`; None where no token
    holds any of them."""
    holds = np.flatnonzero((offsets[:, 1] > begin) & (offsets[:, 0] < end) & (offsets[:, 0] < offsets[:, 1]))
    return (int(holds[0]), int(holds[-1])) if len(holds) else None
