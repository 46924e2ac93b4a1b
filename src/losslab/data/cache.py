"""Tokens on disk, under a hash of everything that decides them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.console import measuring
from losslab.data.encoding import KINDS, TokenSplit, dtypes_of, encode_pieces
from losslab.data.overlap import find_overlap
from losslab.data.pieces import sample
from losslab.data.round_trip import RoundTrip, round_trip
from losslab.data.sources import Corpus
from losslab.data.splits import SPLITS
from losslab.data.store import key_of, map_array, open_or_build, read_meta, read_parts, write_meta
from losslab.data.token_writer import write_streams
from losslab.data.tokenizer import Tokenizer, load_tokenizer, make_tokenizer
from losslab.errors import UserError
from losslab.files import write_atomic

_FORMAT = 5
MASKS = "masks"
"""Setting of a cache whose tokenizer has a mask token; others lack it."""
TRAINED_ON = 2**30
"""Bytes of train, beyond which a tokenizer is trained on a sample of so many, chosen by the documents' hashes."""
_MADE = ".tokenizer"
"""The hash of the tokenizer that a build has made."""


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


def encode_split(documents: Sequence[str], tokenizer: Tokenizer) -> TokenSplit:
    """Tokenise documents into one stream, each closed by the tokenizer's end."""
    pieces = []
    with measuring("tokenising", len(documents)) as advance:
        for piece in encode_pieces(documents, tokenizer):
            pieces.append(piece.stream)
            advance(len(piece.stream.lengths), piece.size)
    return TokenSplit(
        *(
            np.concatenate([np.empty(0, dtype), *(getattr(piece, kind) for piece in pieces)])
            for kind, dtype in dtypes_of(tokenizer).items()
        )
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
        _write(folder, settings, corpus, _tokenizer_of_build(folder, settings, make))

    def make() -> Tokenizer:
        train, masks = sample(corpus.documents["train"], TRAINED_ON), MASKS in settings
        return make_tokenizer(tokenizer, vocab_size, train, lowercase=lowercase, masks=masks)

    return open_or_build(root / cache_key(settings), open_cache, write, resumes=True)


def _tokenizer_of_build(folder: Path, settings: dict[str, Any], make: Callable[[], Tokenizer]) -> Tokenizer:
    """The tokenizer of a build: a killed one has kept it, with its hash beside it, once it was made."""
    note = folder / _MADE
    with suppress(OSError, ValueError, UserError):
        made = load_tokenizer(folder)
        if note.read_text() == made.digest():
            return made
    for path in folder.iterdir():
        path.unlink()
    made = make()
    made.save(folder)
    write_atomic(note, made.digest().encode())
    return made


def _write(folder: Path, settings: dict[str, Any], corpus: Corpus, tokenizer: Tokenizer) -> None:
    by_split = corpus.documents
    meta: dict[str, Any] = {"settings": settings, "tokenizer": tokenizer.digest(), "vocab_size": tokenizer.vocab_size}
    meta["tokens"] = write_streams(folder, by_split, tokenizer, {key: meta[key] for key in ("settings", "tokenizer")})
    meta |= {"documents": {split: len(by_split[split]) for split in SPLITS}, "words": corpus.words, "how": corpus.how}
    if settings["tokenizer"] == "bpe" and (sampled := len(sample(by_split["train"], TRAINED_ON))) < len(
        by_split["train"]
    ):
        meta["tokenizer_trained_on"] = {"documents": sampled, "of": len(by_split["train"])}
    np.save(folder / "counts.npy", _count(folder / "train.tokens.npy", tokenizer))
    back = round_trip(by_split["val"], without_ends(_map_split(folder, "val"), tokenizer), tokenizer)
    meta["round_trip"] = back._asdict()
    meta["overlap"] = find_overlap(by_split)
    write_meta(folder, meta)


def _map_split(folder: Path, split: str) -> TokenSplit:
    return TokenSplit(*(map_array(folder / f"{split}.{kind}.npy") for kind in KINDS))


def _count(path: Path, tokenizer: Tokenizer) -> NDArray[np.int64]:
    """[V]: how often each token occurs; a part of the stream at a time, for numpy widens what it counts."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for tokens in read_parts(path):
        counts += np.bincount(tokens, minlength=tokenizer.vocab_size)
    return counts
