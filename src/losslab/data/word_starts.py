"""Where words begin in a list of tokens, by the tokenizer's own marks."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Vocabulary
from losslab.data.byte_level import byte_characters
from losslab.data.tokenizer import FileTokenizer, Tokenizer

_SPACE, _LETTER, _DIGIT, _OTHER = range(4)
_METASPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The facts of a tokenizer that tasks need to draw tokens."""
    return Vocabulary(tokenizer.vocab_size, tokenizer.end, tokenizer.mask, WordStarts(tokenizer))


class _Marks(NamedTuple):
    """Bool or uint8 [V], by token id."""

    begins: NDArray[Any]
    """A word begins with it."""
    ends: NDArray[Any]
    """A word ends with it."""
    first: NDArray[Any]
    """The kind of its first character: space, letter, digit or other."""
    last: NDArray[Any]
    joins: NDArray[Any]
    """It ends with a space, which belongs to what follows."""


class WordStarts:
    """int64 [T] → bool [T]: whether a word begins at each token.

    WordPiece: at tokens without the prefix of continuations (##). Whole words as tokens: at each. All others (BPE,
    Unigram, bytes): at tokens that begin with a space or its mark (Ġ, ▁), after those that end a word (</w>), and where
    letters, digits, white space and other characters meet, as GPT-2 cuts text. Bytes beyond ASCII count as letters.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, tokens: Tensor) -> Tensor:
        marks, ids = self._marks, tokens.numpy()
        found = marks.begins[ids]
        meet = (marks.first[ids[1:]] != marks.last[ids[:-1]]) & ~marks.joins[ids[:-1]]
        found[1:] |= marks.ends[ids[:-1]] | meet
        found[:1] = True
        return torch.from_numpy(found)

    @cached_property
    def _marks(self) -> _Marks:
        special = [token for token in (self.tokenizer.end, self.tokenizer.mask) if token is not None]
        marks = self._of_pieces()
        marks.begins[special] = True
        marks.ends[special] = True
        return marks

    def _of_pieces(self) -> _Marks:
        size = self.tokenizer.vocab_size
        begins, ends, joins = (np.zeros(size, dtype=bool) for _ in range(3))
        first, last = np.zeros(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8)
        if not isinstance(self.tokenizer, FileTokenizer):
            kinds = np.array([_kind(chr(byte)) for byte in range(256)], dtype=np.uint8)
            first[:256] = last[:256] = kinds
            begins[ord(" ")] = joins[ord(" ")] = True
            return _Marks(begins, ends, first, last, joins)
        model = json.loads(self.tokenizer.content)["model"]
        whole = model.get("type") == "WordLevel"
        prefix = model.get("continuing_subword_prefix") or ""
        suffix = model.get("end_of_word_suffix") or ""
        of_bytes = {character: chr(byte) for byte, character in enumerate(byte_characters())}
        is_bytes = "ByteLevel" in self.tokenizer.content
        for token in range(size):
            piece = self.tokenizer.backend.id_to_token(token) or ""
            if whole or prefix:
                begins[token] = whole or not piece.startswith(prefix)
                continue
            ends[token] = bool(suffix) and piece.endswith(suffix)
            piece = piece.removesuffix(suffix).replace(_METASPACE, " ")
            text = "".join(of_bytes.get(character, character) for character in piece) if is_bytes else piece
            begins[token], joins[token] = text.startswith(" "), text.endswith(" ")
            shown = text.removeprefix(" ") or text
            if shown:
                first[token], last[token] = _kind(shown[0]), _kind(shown[-1])
        return _Marks(begins, ends, first, last, joins)


def _kind(character: str) -> int:
    if character.isspace():
        return _SPACE
    if character.isalpha() or not character.isascii():
        return _LETTER
    return _DIGIT if character.isdigit() else _OTHER
