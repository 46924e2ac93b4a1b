"""A tokenised text as `losslab data inspect` describes it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from losslab.contracts import SplitContent
from losslab.data.cache import TokenCache
from losslab.data.encoding import TokenSplit

_MOST = 100_000
"""Documents that are held against one another."""


def text_content(cache: TokenCache, split: str) -> SplitContent:
    """The documents of a split."""
    stream, words = cache.splits[split], int(cache.meta["words"][split])
    lengths = np.asarray(stream.lengths, dtype=np.int64)
    read = min(len(lengths), _MOST)
    return SplitContent(
        unit="document",
        count=len(lengths),
        read=read,
        lengths=lengths[:read],
        keys=_keys(stream, read),
        coverage={"tokens per word": len(stream.tokens) / words} if words else {},
    )


def _keys(stream: TokenSplit, count: int) -> NDArray[np.uint64]:
    """[count]: a hash of the tokens of each document."""
    ends = np.asarray(stream.lengths[:count], dtype=np.int64).cumsum().tolist()
    starts = [0, *ends[:-1]]
    parts = (np.asarray(stream.tokens[i:j]).tobytes() for i, j in zip(starts, ends, strict=True))
    return np.array([int.from_bytes(hashlib.blake2b(part, digest_size=8).digest()) for part in parts], dtype=np.uint64)
