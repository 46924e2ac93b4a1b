"""The scores of every test token of one run, as a file: made where torch is, read where it is not."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.errors import UserError
from losslab.files import write_atomic

_FORMAT = 1
_DAMAGED = (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error, struct.error)


@dataclass(frozen=True)
class TokenScores:
    """N targets, K different tokens that occur (among inputs, targets and predictions), H heads, P positions."""

    identity: str
    """The run's."""
    step: int
    """The step of the best checkpoint."""
    layer: int
    """Whose attention this is; from 1."""
    num_layers: int
    end: int
    """The token that ends each document; -1 where there is none."""
    tokens: NDArray[Any]
    """uint16 or uint32 [N + 1]: the test split; all but the first are targets."""
    documents: NDArray[Any]
    """int64 [D]: tokens of each document, in their order."""
    position: NDArray[Any]
    """int32 [N]: how many tokens of its window stand before the target; from 1."""
    nll: NDArray[Any]
    """float32 [N]: −log softmax(s · z)_y in nats, with the scale s of the record's best metrics."""
    top_tokens: NDArray[Any]
    """uint16 or uint32 [N, 5] (or V, where that is less): the likeliest tokens, best first."""
    top_probabilities: NDArray[Any]
    """float16, aligned with top_tokens: softmax(s · z)."""
    vocabulary: NDArray[Any]
    """uint16 or uint32 [K], ascending: the tokens that occur."""
    texts: tuple[bytes, ...]
    """[K]: what each of them stands for in a text; a part of a character is no UTF-8."""
    train_counts: NDArray[Any]
    """int64 [K]: how often each of them occurs in train."""
    attention: NDArray[Any]
    """float16 [H, P, P]: of the first P tokens of the first window, how much each (row) takes from each (column)."""

    def write(self, path: Path) -> None:
        """Write atomically; the same scores give the same bytes."""
        arrays = {name: np.asarray(getattr(self, name)) for name in _NAMES if name != "texts"}
        arrays["texts"] = np.frombuffer(b"".join(self.texts), dtype=np.uint8)
        arrays["text_lengths"] = np.array([len(text) for text in self.texts], dtype=np.int32)
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, format=np.array(_FORMAT), **arrays)
        write_atomic(path, content.getbuffer())

    @classmethod
    def read(cls, path: Path) -> TokenScores:
        """Read what `write` wrote. Raises UserError for a file that is missing, damaged or of another version."""
        with _opened(path) as file:
            ends = np.cumsum(file["text_lengths"])
            content = file["texts"].tobytes()
            values: dict[str, Any] = {name: file[name] for name in _NAMES}
            for name in ("identity", "step", "layer", "num_layers", "end"):
                values[name] = values[name].item()
            values["texts"] = tuple(
                content[end - length : end] for end, length in zip(ends, file["text_lengths"], strict=True)
            )
            scores = cls(**values)
            scores._check()
        return scores

    def rows(self, tokens: NDArray[Any]) -> NDArray[np.int64]:
        """The row of each token in `vocabulary`; the same shape."""
        return np.searchsorted(self.vocabulary, tokens)

    def _check(self) -> None:
        """Raises ValueError for arrays that do not fit one another."""
        count, known = len(self.nll), len(self.vocabulary)
        heads, width, _ = self.attention.shape
        shapes = {
            "tokens": (count + 1,),
            "position": (count,),
            "top_tokens": self.top_probabilities.shape,
            "train_counts": (known,),
            "attention": (heads, width, width),
        }
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape != shape]
        if wrong or len(self.top_tokens) != count or len(self.texts) != known:
            raise ValueError(f"the arrays do not fit one another ({', '.join(wrong) or 'top_tokens, texts'})")
        if not (count and width <= count and self.documents.sum() == count + 1 and np.isfinite(self.nll).all()):
            raise ValueError("nll, attention or documents hold what they cannot")
        for shares in (self.attention, self.top_probabilities):
            if not ((shares >= 0) & (shares <= 1)).all():
                raise ValueError("shares must be from 0 to 1")
        for found in (self.tokens, self.top_tokens):
            if not np.isin(found, self.vocabulary).all():
                raise ValueError("the vocabulary lacks tokens that occur")


_NAMES = tuple(field.name for field in fields(TokenScores))


def is_up_to_date(path: Path, *, identity: str, step: int, layer: int | None) -> bool:
    """Whether the scores in `path` are those of this run and step, and of this layer (None: of the last)."""
    if not path.is_file():
        return False
    try:
        with _opened(path) as file:
            found = {name: file[name].item() for name in ("identity", "step", "layer", "num_layers")}
    except UserError:
        return False
    wanted = {"identity": identity, "step": step, "layer": found["num_layers"] if layer is None else layer}
    return found == found | wanted


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            if file["format"].item() != _FORMAT:
                raise ValueError("another version of losslab wrote it")
            yield file
    except _DAMAGED as error:
        raise UserError(f"{path} holds no scores of tokens ({error}): remove it to have it made again") from None
