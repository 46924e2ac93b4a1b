"""Tokens on disk, under a hash of everything that decides them. Parallel processes build them once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from losslab.console import working
from losslab.data.overlap import find_overlap
from losslab.data.round_trip import RoundTrip, round_trip
from losslab.data.sources import Corpus
from losslab.data.splits import SPLITS, document_hash
from losslab.data.tokenizer import Tokenizer, load_tokenizer, make_tokenizer
from losslab.files import TEMPORARY, sync_folder

DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError)
_FORMAT = 5
_META = "meta.json"
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
    content = json.dumps({**settings, "format": _FORMAT}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def open_cache(folder: Path) -> TokenCache:
    """Map a finished cache. Raises one of DAMAGED where it is missing or damaged."""
    meta = json.loads((folder / _META).read_text())
    for name, checksum in meta["checksums"].items():
        if _checksum(folder / name) != checksum:
            raise ValueError(f"{folder / name} is damaged")
    splits = {
        split: TokenSplit(**{kind: np.load(folder / f"{split}.{kind}.npy", mmap_mode="r") for kind in _KINDS})
        for split in SPLITS
    }
    return TokenCache(folder, meta, splits, np.load(folder / "counts.npy"))


def encode_split(documents: list[str], tokenizer: Tokenizer) -> TokenSplit:
    """Tokenise documents into one stream, each closed by the tokenizer's end."""
    encoded = working(tokenizer.encode(documents), "tokenising", total=len(documents))
    return _join(documents, iter(encoded), tokenizer)


def without_ends(split: TokenSplit, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The tokens of each document, without the one that ends it."""
    start = 0
    for length in split.lengths.tolist():
        yield split.tokens[start : start + length - (tokenizer.end is not None)].tolist()
        start += length


def build_cache(root: Path, settings: dict[str, Any], corpus: Corpus, tokenizer: str, vocab_size: int) -> TokenCache:
    """Open the cache for `settings`, or build it: beside its place, then renamed, under a lock."""
    folder = root / cache_key(settings)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{folder.name}.lock"):
        try:
            return open_cache(folder)
        except DAMAGED:
            shutil.rmtree(folder, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder.name}.", suffix=TEMPORARY))
        try:
            _write(temporary, settings, corpus, tokenizer, vocab_size)
            temporary.rename(folder)
            sync_folder(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return open_cache(folder)


def _write(folder: Path, settings: dict[str, Any], corpus: Corpus, choice: str, vocab_size: int) -> None:
    by_split = corpus.documents
    tokenizer = make_tokenizer(choice, vocab_size, by_split["train"])
    tokenizer.save(folder)
    meta: dict[str, Any] = {"settings": settings, "tokenizer": tokenizer.digest(), "vocab_size": tokenizer.vocab_size}
    meta |= {"tokens": {}, "documents": {}, "words": corpus.words, "how": corpus.how}
    encoded = tokenizer.encode([text for split in SPLITS for text in by_split[split]])
    progress = iter(working(encoded, "tokenising", total=sum(map(len, by_split.values()))))
    for split in SPLITS:
        stream = _join(by_split[split], progress, tokenizer)
        for kind in _KINDS:
            np.save(folder / f"{split}.{kind}.npy", getattr(stream, kind))
        meta["tokens"][split] = len(stream.tokens)
        meta["documents"][split] = len(by_split[split])
        if split == "train":
            np.save(folder / "counts.npy", np.bincount(stream.tokens, minlength=tokenizer.vocab_size))
        if split == "val":
            kept = round_trip(by_split[split], without_ends(stream, tokenizer), tokenizer)
            meta["round_trip"] = kept._asdict()
    meta["overlap"] = find_overlap(by_split)
    meta["checksums"] = {path.name: _checksum(path) for path in sorted(folder.iterdir())}
    (folder / _META).write_text(json.dumps(meta, indent=2))
    for path in folder.iterdir():
        _sync(path)
    sync_folder(folder)


def _join(documents: list[str], encoded: Iterator[tuple[list[int], list[int]]], tokenizer: Tokenizer) -> TokenSplit:
    """One stream out of the tokens and bytes of each document, taken from `encoded`."""
    tokens: list[int] = []
    sizes: list[int] = []
    fit: list[int] = []
    lengths: list[int] = []
    for text in documents:
        ids, ids_bytes = next(encoded)
        if tokenizer.end is not None:
            # A document without a single token leaves its bytes to its end.
            ids_bytes = [*ids_bytes, 0 if ids else len(text.encode())]
            ids = [*ids, tokenizer.end]
        tokens += ids
        sizes += ids_bytes
        fit += [document_hash(text) & 1] * len(ids)
        lengths.append(len(ids))
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    return TokenSplit(
        tokens=np.array(tokens, dtype=dtype),
        bytes=np.array(sizes, dtype=np.uint32),
        fit=np.array(fit, dtype=np.uint8),
        lengths=np.array(lengths, dtype=np.int64),
    )


def _checksum(path: Path) -> int:
    """CRC-32 of a file: against torn writes and bad disks, not against people."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
