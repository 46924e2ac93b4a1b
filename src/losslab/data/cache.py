"""Tokens on disk, under a hash of everything that decides them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.console import working
from losslab.data.overlap import find_overlap
from losslab.data.round_trip import RoundTrip, round_trip
from losslab.data.sources import Corpus
from losslab.data.splits import SPLITS, document_hash
from losslab.data.store import growing, key_of, map_array, open_or_build, read_meta, write_meta
from losslab.data.tokenizer import Tokenizer, load_tokenizer, make_tokenizer

_FORMAT = 5
MASKS = "masks"
"""Setting of a cache whose tokenizer has a mask token; others lack it."""
_AT_ONCE = 2**24
_KINDS = ("tokens", "bytes", "fit", "lengths")


@dataclass(frozen=True)
class TokenSplit:
    """One split as a stream of tokens, memory-mapped."""

    tokens: NDArray[Any]
    """[num_tokens] uint16 or uint32."""
    bytes: NDArray[Any]
    """[num_tokens] raw UTF-8 bytes of each token; 0 for the end of a document."""
    fit: NDArray[Any]
    """[num_tokens] uint8: 1 in the half that fits the temperature of nll_scaled, 0 in the half it is scored on."""
    lengths: NDArray[Any]
    """[num_documents] int64: tokens of each document."""


@dataclass(frozen=True)
class TokenCache:
    """A prepared corpus."""

    folder: Path
    meta: dict[str, Any]
    splits: dict[str, TokenSplit]
    counts: NDArray[np.int64]
    """[V]: how often each token occurs in train."""

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder)

    @property
    def round_trip(self) -> RoundTrip:
        """Whether val comes back from its tokens."""
        return RoundTrip(**self.meta["round_trip"])


def cache_key(settings: dict[str, Any]) -> str:
    """A hash of the source's hash, the rules of documents and splits, the tokenizer and this file's format."""
    return key_of({**settings, "format": _FORMAT})


def open_cache(folder: Path) -> TokenCache:
    """Map a finished cache. Raises one of DAMAGED where it is missing or damaged."""
    meta = read_meta(folder)
    splits = {split: _map_split(folder, split) for split in SPLITS}
    return TokenCache(folder, meta, splits, np.load(folder / "counts.npy"))


def encode_split(documents: list[str], tokenizer: Tokenizer) -> TokenSplit:
    """Tokenise documents into one stream, each closed by the tokenizer's end."""
    encoded = working(tokenizer.encode(documents), "tokenising", total=len(documents))
    pieces = list(_pieces(documents, iter(encoded), tokenizer))
    dtypes = _dtypes(tokenizer)
    return TokenSplit(
        *(np.concatenate([np.empty(0, dtypes[kind]), *(getattr(piece, kind) for piece in pieces)]) for kind in _KINDS)
    )


def without_ends(split: TokenSplit, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The tokens of each document, without the one that ends it."""
    start = 0
    for length in split.lengths.tolist():
        yield split.tokens[start : start + length - (tokenizer.end is not None)].tolist()
        start += length


def build_cache(
    root: Path, settings: dict[str, Any], corpus: Corpus, tokenizer: str, vocab_size: int, *, lowercase: bool = False
) -> TokenCache:
    """Open the cache for `settings`, or build it."""

    def write(folder: Path) -> None:
        train, masks = corpus.documents["train"], MASKS in settings
        made = make_tokenizer(tokenizer, vocab_size, train, lowercase=lowercase, masks=masks)
        _write(folder, settings, corpus, made)

    return open_or_build(root / cache_key(settings), open_cache, write)


def _write(folder: Path, settings: dict[str, Any], corpus: Corpus, tokenizer: Tokenizer) -> None:
    by_split = corpus.documents
    tokenizer.save(folder)
    meta: dict[str, Any] = {"settings": settings, "tokenizer": tokenizer.digest(), "vocab_size": tokenizer.vocab_size}
    meta |= {"tokens": {}, "documents": {}, "words": corpus.words, "how": corpus.how}
    encoded = tokenizer.encode([text for split in SPLITS for text in by_split[split]])
    progress = iter(working(encoded, "tokenising", total=sum(map(len, by_split.values()))))
    for split in SPLITS:
        with ExitStack() as files:
            arrays = {
                kind: files.enter_context(growing(folder / f"{split}.{kind}.npy", dtype))
                for kind, dtype in _dtypes(tokenizer).items()
            }
            for piece in _pieces(by_split[split], progress, tokenizer):
                for kind, append in arrays.items():
                    append(getattr(piece, kind))
        stream = _map_split(folder, split)
        meta["tokens"][split] = len(stream.tokens)
        meta["documents"][split] = len(by_split[split])
        if split == "train":
            np.save(folder / "counts.npy", _count(stream.tokens, tokenizer.vocab_size))
        if split == "val":
            back = round_trip(by_split[split], without_ends(stream, tokenizer), tokenizer)
            meta["round_trip"] = back._asdict()
    meta["overlap"] = find_overlap(by_split)
    write_meta(folder, meta)


def _pieces(
    documents: list[str], encoded: Iterator[tuple[list[int], list[int]]], tokenizer: Tokenizer
) -> Iterator[TokenSplit]:
    """The stream, document by document; their tokens and bytes are taken from `encoded`."""
    dtypes = _dtypes(tokenizer)
    for text in documents:
        ids, ids_bytes = next(encoded)
        if tokenizer.end is not None:
            # A document without a single token leaves its bytes to its end.
            ids_bytes = [*ids_bytes, 0 if ids else len(text.encode())]
            ids = [*ids, tokenizer.end]
        yield TokenSplit(
            tokens=np.array(ids, dtype=dtypes["tokens"]),
            bytes=np.array(ids_bytes, dtype=dtypes["bytes"]),
            fit=np.full(len(ids), document_hash(text) & 1, dtype=dtypes["fit"]),
            lengths=np.array([len(ids)], dtype=dtypes["lengths"]),
        )


def _dtypes(tokenizer: Tokenizer) -> dict[str, Any]:
    """The type of each kind of array."""
    tokens = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    return dict(zip(_KINDS, (tokens, np.uint32, np.uint8, np.int64), strict=True))


def _map_split(folder: Path, split: str) -> TokenSplit:
    return TokenSplit(*(map_array(folder / f"{split}.{kind}.npy") for kind in _KINDS))


def _count(tokens: NDArray[Any], vocab_size: int) -> NDArray[np.int64]:
    """[V]: how often each token occurs; a part of the stream at a time, for numpy widens what it counts."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for i in range(0, len(tokens), _AT_ONCE):
        counts += np.bincount(tokens[i : i + _AT_ONCE], minlength=vocab_size)
    return counts
