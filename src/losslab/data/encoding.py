"""Many documents at once as arrays of tokens: the threads of the tokenizer read the next ones meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from losslab.data.splits import document_hash
from losslab.data.tokenizer import Tokenizer

A = TypeVar("A")
B = TypeVar("B")

_AT_ONCE = 2**20
"""Characters that are encoded together; the tokenizers library takes about 60 bytes of memory for each."""
_MOST_TEXTS = 2**14
_WORKERS = 2
"""One batch is read by the tokenizer's threads while the one before it becomes arrays."""


@dataclass(frozen=True)
class TokenSplit:
    """One split as a stream of tokens, memory-mapped; or a part of one."""

    tokens: NDArray[Any]
    """[num_tokens] uint16 or uint32."""
    bytes: NDArray[Any]
    """[num_tokens] raw UTF-8 bytes of each token; 0 for the end of a document."""
    fit: NDArray[Any]
    """[num_tokens] uint8: 1 in the half that fits the temperature of nll_scaled, 0 in the half it is scored on."""
    lengths: NDArray[Any]
    """[num_documents] int64: tokens of each document."""


KINDS = ("tokens", "bytes", "fit", "lengths")


def dtypes_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The type of each kind of array."""
    tokens = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    return dict(zip(KINDS, (tokens, np.uint32, np.uint8, np.int64), strict=True))


@dataclass(frozen=True)
class Piece:
    """Neighbouring documents, encoded."""

    stream: TokenSplit
    size: int
    """Bytes of their text."""


def encode_pieces(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[Piece]:
    """The stream of tokens in pieces, in the order of the documents, each document closed by the tokenizer's end."""
    yield from ahead(lambda texts: _encode(texts, tokenizer), _batches(documents))


def ahead(encode: Callable[[A], B], batches: Iterable[A]) -> Iterator[B]:
    """The result of each batch in their order; those of the next ones are being made meanwhile."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(_WORKERS) as workers:
        try:
            for batch in batches:
                waiting.append(workers.submit(encode, batch))
                if len(waiting) > _WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    texts: list[str] = []
    size = 0
    for text in documents:
        texts.append(text)
        size += len(text)
        if size >= _AT_ONCE or len(texts) == _MOST_TEXTS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def _encode(texts: list[str], tokenizer: Tokenizer) -> Piece:
    found = tokenizer.encode_together(texts)
    sizes = np.array([len(text) if text.isascii() else len(text.encode()) for text in texts], dtype=np.int64)
    ids, ids_bytes, lengths = found.ids, found.bytes, found.counts
    if tokenizer.end is not None:
        lengths = lengths + 1
        at = np.cumsum(lengths) - 1
        inside = np.ones(len(ids) + len(texts), dtype=bool)
        inside[at] = False
        ids, ids_bytes = (_spread(values, inside) for values in (ids, ids_bytes))
        ids[at] = tokenizer.end
        # A document without a single token leaves its bytes to its end.
        ids_bytes[at] = np.where(lengths == 1, sizes, 0)
    halves = np.fromiter((document_hash(text) & 1 for text in texts), dtype=np.uint8, count=len(texts))
    arrays: tuple[NDArray[Any], ...] = (ids, ids_bytes, np.repeat(halves, lengths), lengths)
    return Piece(
        TokenSplit(*(a.astype(t, copy=False) for a, t in zip(arrays, dtypes_of(tokenizer).values(), strict=True))),
        int(sizes.sum()),
    )


def _spread(values: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[Any]:
    """The values at the places where `inside` is true."""
    spread = np.empty(len(inside), dtype=values.dtype)
    spread[inside] = values
    return spread
