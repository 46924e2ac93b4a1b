"""Tokens of byte-level BPE: each stands for bytes that follow from the token alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LONGEST = 4
"""Bytes of a UTF-8 character."""


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
