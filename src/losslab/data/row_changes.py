"""Changes to the tokens of a row, drawn for each sample: what an Augmentation asks for, carried out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.data.augmentation import Augmentation
from losslab.data.bpe_dropout import BpeDropout
from losslab.data.cells import Columns
from losslab.data.columns import TOKENS, UNKNOWN
from losslab.data.paraphrases import Paraphrases
from losslab.data.text_columns import longest_cut
from losslab.data.tokenizer import Tokenizer
from losslab.data.word_starts import vocabulary_of

Order = NDArray[np.int64]


class RowChanges:
    """The changes under a seed.

    Args:
        columns: the task's.
        tokenizer: of the columns of text; None without any.
        seed: the data's.
        context: the longest sequence.
        joined: columns of text that become one sequence (`Task.joined`).
        paraphrases: of the one column of text.
        bands: values of a frame before frames are stacked; None without frames.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        columns: Columns,
        tokenizer: Tokenizer | None,
        seed: int,
        *,
        context: int,
        joined: Sequence[str] = (),
        paraphrases: Paraphrases | None = None,
        bands: int | None = None,
    ) -> None:
        self.augmentation = augmentation
        self.columns = columns
        self.context = context
        self.joined = joined
        self.paraphrases = paraphrases
        self.recut = BpeDropout(tokenizer) if augmentation.bpe_dropout and tokenizer is not None else None
        self.hide = augmentation.frame_masks(bands) if augmentation.hides_frames and bands is not None else None
        self.vocabulary = None if tokenizer is None else vocabulary_of(tokenizer)
        self.begin = None if tokenizer is None else tokenizer.begin
        self.space = None if tokenizer is None else _token_of_space(tokenizer)
        digest = hashlib.sha256(f"{seed}/augmentation".encode()).digest()
        self._key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)

    def generator(self, kind: int, number: int) -> np.random.Generator:
        """The draws for a number of a kind: 0 for places of the order of train, 1 for optimizer steps."""
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, number, kind]))

    def __call__(self, row: dict[str, Any], place: int) -> dict[str, Any]:
        """The row as it is trained on at a place of the endless order of train."""
        if self.hide is not None:
            names, draws = (name for name, kind in self.columns.items() if kind == "frames"), self.generator(0, place)
            row = row | {name: self.hide(row[name], draws) for name in names}
        if not self.augmentation.changes_tokens:
            return row
        draws = self.generator(0, place)
        if self.paraphrases is not None:
            row = row | self._reworded(row, self.paraphrases, draws)
        if self.recut is not None:
            row = row | self._recut(row, self.recut, draws)
        changed = dict(row)
        for name, kind in self.columns.items():
            if kind not in TOKENS:
                continue
            tokens: Tensor = row[name]
            order = self._order(tokens, kind, draws)
            changed[name] = self._hidden(tokens[torch.from_numpy(order)], kind, draws)
            if kind == "words":  # a tag goes where its word goes
                tags = [other for other, its in self.columns.items() if its == "tags"]
                changed |= {other: row[other][torch.from_numpy(order)] for other in tags}
        return changed

    def _reworded(self, row: dict[str, Any], paraphrases: Paraphrases, draws: np.random.Generator) -> dict[str, Tensor]:
        """The column of text in other words, or nothing."""
        name = self.augmentation.text_column(self.columns)
        chosen = draws.random() < self.augmentation.paraphrasing
        others = paraphrases.of(row[name].tolist()) if chosen else []
        return {name: torch.tensor(others[int(draws.integers(len(others)))])} if others else {}

    def _recut(self, row: dict[str, Any], recut: BpeDropout, draws: np.random.Generator) -> dict[str, Tensor]:
        """The columns of text in other tokens, which are more, and so are cut to the context again."""
        own = random.Random(int(draws.integers(2**63)))
        found: dict[str, list[int]] = {}
        ends: dict[str, list[int]] = {}
        for name in (name for name, kind in self.columns.items() if kind == "text"):
            size, tokens = self._length(row[name], "text"), row[name].tolist()
            found[name], ends[name] = recut(tokens[:size], self.augmentation.bpe_dropout, own), tokens[size:]
        room = self.context - sum(len(ends[name]) for name in self.joined)
        lengths = longest_cut([len(found[name]) for name in self.joined], room)
        found |= {name: found[name][:length] for name, length in zip(self.joined, lengths, strict=True)}
        return {name: torch.tensor([*tokens, *ends[name]][: self.context]) for name, tokens in found.items()}

    def _order(self, tokens: Tensor, kind: str, draws: np.random.Generator) -> Order:
        """The numbers of the tokens that stay, in their new order; begin and end of a text stay where they are."""
        asked = self.augmentation
        begin, end = self._begin(tokens, kind), self._length(tokens, kind)
        order: Order = np.arange(begin, end)
        if asked.word_swap or asked.word_deletion:
            words = [begin + word for word in self._words(tokens[begin:end], kind)]
            words = swapped(words, asked.word_swap, draws) if asked.word_swap else words
            words = kept(words, asked.word_deletion, draws) if asked.word_deletion else words
            order = np.concatenate(words) if words else order
        if asked.deletion:
            order = order[kept_of(len(order), asked.deletion, draws)]
        return np.concatenate([np.arange(begin), order, np.arange(end, len(tokens))])

    def _begin(self, tokens: Tensor, kind: str) -> int:
        """1 where the tokens begin with one that is no text's."""
        return int(kind == "text" and self.begin is not None and len(tokens) > 0 and int(tokens[0]) == self.begin)

    def _length(self, tokens: Tensor, kind: str) -> int:
        """The number of tokens without the end of text."""
        end = self.vocabulary.end if kind == "text" and self.vocabulary is not None else None
        return len(tokens) - (len(tokens) > 0 and end is not None and int(tokens[-1]) == end)

    def _words(self, tokens: Tensor, kind: str) -> list[Order]:
        """The numbers of the tokens of each word."""
        if kind == "words" or self.vocabulary is None or not len(tokens):
            return list(np.arange(len(tokens))[:, None])
        begins = self.vocabulary.begins_word(tokens).numpy().copy()
        if self.space is not None:  # a space that is a token of its own belongs to the word after it
            begins[1:] &= tokens[:-1].numpy() != self.space
        return np.split(np.arange(len(tokens)), np.flatnonzero(begins)[1:])

    def _hidden(self, tokens: Tensor, kind: str, draws: np.random.Generator) -> Tensor:
        """The tokens, some of them behind the mask token."""
        if not self.augmentation.masking:
            return tokens
        mask = UNKNOWN if kind == "words" or self.vocabulary is None else self.vocabulary.mask
        assert mask is not None, "the tokenizer was made with a mask token"
        begin, end = self._begin(tokens, kind), self._length(tokens, kind)
        hidden = np.zeros(len(tokens), dtype=bool)
        hidden[begin:end] = draws.random(end - begin) < self.augmentation.masking
        return tokens.masked_fill(torch.from_numpy(hidden), mask)


def swapped(words: list[Order], share: float, draws: np.random.Generator) -> list[Order]:
    """Two words at random change places, share × words times, at least once (EDA's random swap)."""
    words = list(words)
    if len(words) > 1:
        for _ in range(max(1, int(share * len(words)))):
            i, j = draws.choice(len(words), 2, replace=False).tolist()
            words[i], words[j] = words[j], words[i]
    return words


def kept(words: list[Order], share: float, draws: np.random.Generator) -> list[Order]:
    """The words that are not left out, each with probability `share`; at least one."""
    return [words[i] for i in kept_of(len(words), share, draws).tolist()]


def kept_of(count: int, share: float, draws: np.random.Generator) -> Order:
    """The numbers below `count` that stay where each is left out with probability `share`; at least one, if any."""
    found = np.flatnonzero(draws.random(count) >= share)
    return draws.integers(count, size=1) if count and not len(found) else found


def _token_of_space(tokenizer: Tokenizer) -> int | None:
    """The token of a space alone, where there is one."""
    ((tokens, _),) = tokenizer.encode([" "])
    return tokens[0] if len(tokens) == 1 else None
