"""The bytes of text that tokens stand for: by their offsets, or, in a byte-level BPE, by the token alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from losslab.data.stored_text import byte_positions

_LONGEST = 4
"""Bytes of a UTF-8 character."""


Ids = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""[N] tokens of all documents, without ends, and [number of documents] tokens of each."""


class Encoded(NamedTuple):
    """Neighbouring documents, encoded."""

    ids: NDArray[np.uint32]
    """[N] tokens of all documents, without ends."""
    bytes: NDArray[np.uint32]
    """[N] raw UTF-8 bytes that each stands for."""
    counts: NDArray[np.int64]
    """[number of documents] tokens of each."""


def ids_of(encodings: Sequence[Any]) -> Ids:
    """The ids of what the library has encoded."""
    counts = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
    each = chain.from_iterable(encoding.ids for encoding in encodings)
    return np.fromiter(each, dtype=np.uint32, count=int(counts.sum())), counts


def byte_characters() -> list[str]:
    """[256]: printable bytes stand for themselves, the others for the characters from 256 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def byte_lengths(content: str, vocab_size: int) -> NDArray[np.uint32] | None:
    """[V]: the bytes that each token stands for; None where a token may stand for other text than its own, as with a
    normalizer, with offsets that are trimmed, or with added tokens that are found in the text.

    Args:
        content: of a tokenizer.json.
    """
    found: dict[str, Any] = json.loads(content)
    model, before, after = found["model"], found.get("pre_tokenizer") or {}, found.get("post_processor")
    vocabulary = model.get("vocab")
    plain = (
        found.get("normalizer") is None
        and (after is None or (after.get("type") == "ByteLevel" and not after.get("trim_offsets", True)))
        and (before.get("type") == "ByteLevel" and not before.get("add_prefix_space", True))
        and (model.get("type") == "BPE" and isinstance(vocabulary, dict))
        and not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and all(token["special"] for token in found.get("added_tokens", []))
    )
    if not plain or not set(byte_characters()) <= vocabulary.keys():
        return None
    lengths = np.zeros(vocab_size, dtype=np.uint32)
    for token, number in vocabulary.items():
        lengths[number] = len(token)
    return lengths


def whole_characters(content: bytes, lengths: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Share out bytes so that each character belongs to the first token that has a byte of it.

    Args:
        lengths: the bytes that each token of `content` stands for, [N].
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    assert (ends[-1] if len(ends) else 0) == len(content), "byte-level tokens hold every byte of their text"
    inside = np.zeros(len(content) + 1, dtype=np.int64)
    inside[:-1] = (np.frombuffer(content, dtype=np.uint8) & 0xC0) == 0x80
    if inside.any():
        for _ in range(_LONGEST - 1):
            ends += inside[ends]
    return np.diff(ends, prepend=0).astype(np.uint32)


def bytes_of_tokens(text: str, offsets: list[tuple[int, int]]) -> list[int]:
    """Share out a document's UTF-8 bytes: each token gets those up to its end that no earlier one had, the last one the
    rest, so that they add up exactly, whatever the tokenizer drops or splits."""
    if not offsets:
        return []
    ends = np.maximum.accumulate(np.array([end for _, end in offsets]))
    ends[-1] = len(text)
    positions = ends if text.isascii() else byte_positions(text)[ends]
    sizes: list[int] = np.diff(positions, prepend=0).tolist()
    return sizes
