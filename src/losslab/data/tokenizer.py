"""Text → token ids: byte-level BPE trained on the train split, a tokenizer.json, or plain bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from losslab.console import working
from losslab.data.begin_token import begin_of
from losslab.data.byte_level import (
    Encoded,
    Ids,
    byte_lengths,
    bytes_of_tokens,
    ids_of,
    whole_characters,
)
from losslab.errors import UserError

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"
_KNOWN_ENDS = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "[SEP]")
_KNOWN_MASKS = (MASK, "[MASK]", "<mask>")
_BATCH = 512
_FILE, _BYTES = "tokenizer.json", "tokenizer.bytes"
"""Artifacts; that of plain bytes is empty, or the word below."""
_BEGIN = "tokenizer.begin"
"""Artifact of a tokenizer that has a token before texts: its id."""
_MASKED_BYTES = "mask"
"""Content of the artifact of bytes with a mask token."""


class Documents(Sized, Iterable[str], Protocol):
    """Texts that are read as often as they are asked for."""


class Tokenizer(Protocol):
    """Members of a tokenizer that the cache needs."""

    vocab_size: int
    end: int | None
    """The id that ends each document, if the vocabulary has one."""
    begin: int | None
    """The id before a text of a row, where a pretrained model wants one."""
    mask: int | None
    """The id that stands for a hidden token, if the vocabulary has one. No text is encoded to it."""

    @property
    def content(self) -> str | None:
        """The content of its tokenizer.json; None for plain bytes."""

    def encode(self, documents: list[str]) -> Iterator[tuple[list[int], list[int]]]:
        """Each document's token ids, without the end, and the raw UTF-8 bytes that each stands for."""

    def encode_together(self, texts: list[str]) -> Encoded:
        """The same as arrays, of as many documents as fit into memory at once."""

    def encode_ids(self, texts: list[str]) -> Ids: ...

    def decode(self, tokens: list[int]) -> str: ...

    def digest(self) -> str:
        """SHA-256 of all that decides the ids."""

    def save(self, folder: Path) -> None: ...


class ByteTokenizer:
    """One token a byte, and 256 for the end of text.

    Args:
        masks: 257 is the mask token.
    """

    vocab_size = 257
    end: int | None = 256
    begin: int | None = None
    mask: int | None = None
    content: str | None = None

    def __init__(self, *, masks: bool = False) -> None:
        if masks:
            self.vocab_size, self.mask = 258, 257

    def encode(self, documents: list[str]) -> Iterator[tuple[list[int], list[int]]]:
        for text in documents:
            tokens = list(text.encode())
            yield tokens, [1] * len(tokens)

    def encode_together(self, texts: list[str]) -> Encoded:
        ids, counts = self.encode_ids(texts)
        return Encoded(ids, np.ones_like(ids), counts)

    def encode_ids(self, texts: list[str]) -> Ids:
        content = [text.encode() for text in texts]
        ids = np.frombuffer(b"".join(content), dtype=np.uint8).astype(np.uint32)
        return ids, np.array([len(each) for each in content], dtype=np.int64)

    def decode(self, tokens: list[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode(errors="replace")

    def digest(self) -> str:
        return hashlib.sha256(b"losslab bytes 1" + (b"" if self.mask is None else b" mask")).hexdigest()

    def save(self, folder: Path) -> None:
        """Keep whether there is a mask token: of plain bytes there is nothing to keep."""
        if self.mask is not None:
            (folder / _BYTES).write_text(_MASKED_BYTES)


class FileTokenizer:
    """A tokenizer of the `tokenizers` library.

    Args:
        content: what a tokenizer.json holds.
        name: what to call it in a message.
        begins: texts begin with the token that its post-processor puts there.
    """

    def __init__(self, content: str, name: str, *, begins: bool = False) -> None:
        from tokenizers import Tokenizer as Backend

        try:
            self.backend = Backend.from_str(content)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"data.tokenizer={name} is not a tokenizer.json: {error}") from None
        self.backend.no_padding()
        self.backend.no_truncation()
        self.backend.encode_special_tokens = True  # a text that spells a token out has not ended there
        self.content = content
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise UserError(f"data.tokenizer={name} has no tokens")
        self.name = name
        self.vocab_size = max(vocabulary.values()) + 1
        self.end = next((vocabulary[end] for end in _KNOWN_ENDS if end in vocabulary), None)
        self.begin = begin_of(content) if begins else None
        self.mask = next((vocabulary[mask] for mask in _KNOWN_MASKS if mask in vocabulary), None)

    @classmethod
    def read(cls, path: str, *, begins: bool = False) -> FileTokenizer:
        """Read tokenizer.json. Raises UserError when it is missing or no tokenizer."""
        try:
            content = Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"data.tokenizer={path} is neither bpe, bytes nor a readable tokenizer.json: {error}"
            ) from None
        return cls(content, path, begins=begins)

    @classmethod
    def train(cls, documents: Documents, vocab_size: int, *, lowercase: bool = False) -> FileTokenizer:
        """Byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909; bytes: Radford et al. 2019).

        Args:
            lowercase: its tokenizer.json lowers the case of all that it reads.
        """
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        backend = Backend(models.BPE())
        if lowercase:
            backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(
            working(documents, f"training a tokenizer of {vocab_size}", len(documents)), trainer
        )
        return cls(backend.to_str(), "bpe")

    def with_mask(self) -> FileTokenizer:
        """The same with a mask token: its own ([MASK], <mask>), else one more id, the last.

        Raises:
            UserError: where the vocabulary has gaps, so that the library would give a used id to the new token.
        """
        if self.mask is not None:
            return self
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Backend

        backend = Backend.from_str(self.content)
        used = set(backend.get_vocab(with_added_tokens=True).values())
        backend.add_special_tokens([AddedToken(MASK, special=True)])
        if backend.token_to_id(MASK) in used:
            raise UserError(f"data.tokenizer={self.name} has gaps in its ids: give it a [MASK] token of its own")
        return FileTokenizer(backend.to_str(), self.name, begins=self.begin is not None)

    def encode(self, documents: list[str]) -> Iterator[tuple[list[int], list[int]]]:
        for start in range(0, len(documents), _BATCH):
            texts = documents[start : start + _BATCH]
            for text, encoding in zip(texts, self.encodings(texts), strict=True):
                yield encoding.ids, bytes_of_tokens(text, encoding.offsets)

    def encode_together(self, texts: list[str]) -> Encoded:
        if (sizes := self._byte_lengths) is not None:
            ids, counts = self.encode_ids(texts)
            return Encoded(ids, whole_characters("".join(texts).encode(), sizes[ids]), counts)
        encodings = self.encodings(texts)
        ids, counts = ids_of(encodings)
        shares = (bytes_of_tokens(text, e.offsets) for text, e in zip(texts, encodings, strict=True))
        return Encoded(ids, np.fromiter(chain.from_iterable(shares), dtype=np.uint32, count=len(ids)), counts)

    def encode_ids(self, texts: list[str]) -> Ids:
        return ids_of(self._encodings(self.backend.encode_batch_fast, texts))

    def encodings(self, texts: list[str]) -> list[Any]:
        """The library's encodings, with `ids` and `offsets` in characters."""
        return self._encodings(self.backend.encode_batch, texts)

    def _encodings(self, encode: Callable[..., list[Any]], texts: list[str]) -> list[Any]:
        try:
            return encode(texts, add_special_tokens=False)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"data.tokenizer={self.name} cannot read this text: {error}") from None

    @cached_property
    def _byte_lengths(self) -> NDArray[np.uint32] | None:
        """[V]: the bytes of text that each token stands for, where that follows from the token alone."""
        return byte_lengths(self.content, self.vocab_size)

    def decode(self, tokens: list[int]) -> str:
        text: str = self.backend.decode(tokens)
        return text

    def digest(self) -> str:
        return hashlib.sha256(self.content.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_bytes(self.content.encode())


def make_tokenizer(
    choice: str,
    vocab_size: int,
    train_documents: Documents,
    *,
    lowercase: bool = False,
    masks: bool = False,
    begins: bool = False,
) -> Tokenizer:
    """`bpe`, `bytes`, or the path of a tokenizer.json.

    Args:
        lowercase: of a trained bpe.
        masks: with a mask token, which `vocab_size` does not count.
        begins: of a tokenizer.json, with the token that it puts before texts.
    """
    if choice == "bytes":
        return ByteTokenizer(masks=masks)
    if choice == "bpe":
        made = FileTokenizer.train(train_documents, vocab_size, lowercase=lowercase)
    else:
        made = FileTokenizer.read(choice, begins=begins)
    return made.with_mask() if masks else made


def artifacts_of(tokenizer: Tokenizer) -> dict[str, str]:
    """The file that restores a tokenizer, for checkpoints and exports: name → content."""
    if tokenizer.content is None:
        return {_BYTES: "" if tokenizer.mask is None else _MASKED_BYTES}
    return {_FILE: tokenizer.content} | ({} if tokenizer.begin is None else {_BEGIN: str(tokenizer.begin)})


def tokenizer_of(artifacts: Mapping[str, str]) -> Tokenizer | None:
    """The tokenizer among the artifacts of a data set, if there is one."""
    if _BYTES in artifacts:
        return ByteTokenizer(masks=artifacts[_BYTES] == _MASKED_BYTES)
    return FileTokenizer(artifacts[_FILE], "the kept one", begins=_BEGIN in artifacts) if _FILE in artifacts else None


def restore_tokenizer(content: str | None) -> Tokenizer:
    """The tokenizer whose `content` was kept."""
    return ByteTokenizer() if content is None else FileTokenizer(content, "the kept one")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that was saved in a cache folder."""
    path = folder / "tokenizer.json"
    return FileTokenizer.read(str(path)) if path.is_file() else ByteTokenizer(masks=(folder / _BYTES).is_file())
