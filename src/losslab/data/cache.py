"""Tokens on disk, under a hash of everything that decides them. Parallel processes build them once."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from losslab.console import working
from losslab.data.splits import SPLITS, document_hash, split_documents
from losslab.data.tokenizer import Tokenizer, load_tokenizer, make_tokenizer, saved_digest

DAMAGED = (OSError, ValueError, KeyError, EOFError)
_FORMAT = 1
_META = "meta.json"


@dataclass(frozen=True)
class TokenSplit:
    """One split as a stream of tokens, memory-mapped."""

    tokens: NDArray[Any]
    """[num_tokens] uint16 or uint32."""
    bytes: NDArray[Any]
    """[num_tokens] raw UTF-8 bytes of each token; 0 for the end of a document."""
    fit: NDArray[Any]
    """[num_tokens] uint8: 1 in the half that fits the temperature of nll_scaled, 0 in the half it is scored on."""


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


def cache_key(settings: dict[str, Any]) -> str:
    """Of the source's hash, the document rule, the tokenizer and this file's format."""
    content = json.dumps({**settings, "format": _FORMAT}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def open_cache(folder: Path) -> TokenCache:
    """Map a finished cache. Raises one of DAMAGED where it is missing or damaged."""
    meta = json.loads((folder / _META).read_text())
    splits = {}
    for split in SPLITS:
        arrays = {kind: np.load(folder / f"{split}.{kind}.npy", mmap_mode="r") for kind in ("tokens", "bytes", "fit")}
        if any(len(array) != meta["tokens"][split] for array in arrays.values()):
            raise ValueError(f"{folder} is damaged")
        splits[split] = TokenSplit(**arrays)
    counts = np.load(folder / "counts.npy")
    if len(counts) != meta["vocab_size"] or saved_digest(folder) != meta["tokenizer"]:
        raise ValueError(f"{folder} is damaged")
    return TokenCache(folder, meta, splits, counts)


def build_cache(
    root: Path, settings: dict[str, Any], documents: list[str], tokenizer: str, vocab_size: int
) -> TokenCache:
    """Open the cache for `settings`, or build it: beside its place, then renamed, under a lock."""
    folder = root / cache_key(settings)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{folder.name}.lock"):
        try:
            return open_cache(folder)
        except DAMAGED:
            shutil.rmtree(folder, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder.name}."))
        try:
            _write(temporary, settings, documents, tokenizer, vocab_size)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return open_cache(folder)


def _write(folder: Path, settings: dict[str, Any], documents: list[str], choice: str, vocab_size: int) -> None:
    by_split = split_documents(documents)
    tokenizer = make_tokenizer(choice, vocab_size, by_split["train"])
    tokenizer.save(folder)
    meta: dict[str, Any] = {"settings": settings, "tokenizer": tokenizer.digest(), "vocab_size": tokenizer.vocab_size}
    meta |= {"tokens": {}, "documents": {}}
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    encoded = tokenizer.encode([text for split in SPLITS for text in by_split[split]])
    progress = iter(working(encoded, "tokenising", total=len(documents)))
    for split in SPLITS:
        tokens: list[int] = []
        sizes: list[int] = []
        fit: list[int] = []
        for text in by_split[split]:
            ids, ids_bytes = next(progress)
            if tokenizer.end is not None:
                # A document without a single token leaves its bytes to its end.
                ids_bytes = [*ids_bytes, 0 if ids else len(text.encode())]
                ids = [*ids, tokenizer.end]
            tokens += ids
            sizes += ids_bytes
            fit += [document_hash(text) & 1] * len(ids)
        np.save(folder / f"{split}.tokens.npy", np.array(tokens, dtype=dtype))
        np.save(folder / f"{split}.bytes.npy", np.array(sizes, dtype=np.uint32))
        np.save(folder / f"{split}.fit.npy", np.array(fit, dtype=np.uint8))
        meta["tokens"][split] = len(tokens)
        meta["documents"][split] = len(by_split[split])
        if split == "train":
            np.save(folder / "counts.npy", np.bincount(np.array(tokens), minlength=tokenizer.vocab_size))
    (folder / _META).write_text(json.dumps(meta, indent=2))
