"""The batches of a tokenised text: shuffled windows to train on, windows side by side to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.contracts import Batch, Share, Subset, Task, Vocabulary, Windows
from losslab.data.cache import TokenCache
from losslab.data.encoding import TokenSplit
from losslab.data.sampler import row_seeds
from losslab.data.tokenizer import Tokenizer
from losslab.data.windows import EvalWindows, Form, TrainOrder, gather, hash_batches, plain_form
from losslab.data.word_starts import vocabulary_of

_FEW_DOCUMENTS = 20
"""A split with fewer documents is halved by window."""


@dataclass(frozen=True)
class TaskForm:
    """Batches of windows as a task makes them, with what it draws."""

    task: Task
    vocabulary: Vocabulary

    def __call__(self, windows: Windows, seeds: NDArray[np.uint64]) -> Batch:
        return self.task.draw(self.task.of_windows(windows), seeds, self.vocabulary)


class TextSampler:
    """Batches of windows.

    Args:
        context: T, tokens in a window.
        stride: of windows to evaluate on (`EvalWindows`).
        packed: documents are told apart.
        task, tokenizer: that make batches of windows; default: the next token at every position.
        memory: a folder that keeps orders of windows, which take seconds to work out for a large split.
    """

    def __init__(
        self,
        context: int,
        memory: Path | None = None,
        *,
        stride: int | None = None,
        packed: bool = False,
        task: Task | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.context = context
        self.stride = stride
        self.packed = packed
        self.skips_starts = packed and (task is None or task.causal)
        self.form: Form = plain_form if task is None or tokenizer is None else TaskForm(task, vocabulary_of(tokenizer))
        self.masks = task is not None and task.masks
        self.reads_all = not (packed or self.masks)
        """Whether every token but the first is a target."""
        self.memory = memory
        self.windows: dict[str, EvalWindows] = {}
        self._tokens: NDArray[Any] | None = None
        self._ends: NDArray[np.int64] | None = None

    def take_cache(self, cache: TokenCache) -> None:
        """The splits of a prepared text."""
        self._tokens = cache.splits["train"].tokens
        self._ends = np.asarray(cache.splits["train"].lengths, dtype=np.int64).cumsum() if self.packed else None
        for split, found in cache.splits.items():
            self.take(split, found, cache.meta["documents"][split])

    def take(self, split: str, tokens: TokenSplit, documents: int) -> None:
        """One split to evaluate on."""
        by_window = documents < _FEW_DOCUMENTS
        self.windows[split] = EvalWindows(
            tokens,
            self.context,
            by_window=by_window,
            stride=self.stride,
            packed=self.packed,
            skips_starts=self.skips_starts,
            form=self.form,
            name=split,
            memory=self.memory,
        )

    @property
    def tokens(self) -> NDArray[Any]:
        """The stream of train."""
        assert self._tokens is not None, "prepare() comes first"
        return self._tokens

    def order(self, seed: int) -> TrainOrder:
        return TrainOrder(len(self.tokens), self.context, seed)

    def hash_batches(self, order: TrainOrder, batch_size: int, count: int) -> str:
        return hash_batches(self.tokens, order, batch_size, count)

    def train_batch(self, order: TrainOrder, batch_size: int, step: int, share: Share) -> Batch:
        """Windows of an optimizer step: the sequences [step · B, (step + 1) · B) of the order, however many ranks and
        micro-batches share them."""
        rows = share.rows(batch_size)
        first, count = step * batch_size + rows.start, rows.stop - rows.start
        windows = gather(self.tokens, order.starts(first, count), self.context, self._ends)
        return self.form(windows, row_seeds(f"train/{order.seed}", np.arange(first, first + count)))

    def eval_batches(self, split: str, size: int, share: Share, subset: Subset, most: int | None) -> Iterator[Batch]:
        """All windows of `split`, or those that hold `most` positions (`EvalWindows.choose`), shared out among the
        ranks, none twice. `fit`: windows that hold at most `most` positions of the half that fits the temperature, for
        each rank the same."""
        windows = self.windows[split]
        if subset == "fit":
            return windows.fit_batches(size, windows.num_positions(None) if most is None else most)
        return windows.batches(size, rank=share.rank, ranks=share.ranks, most=most)
