"""The batches of a tokenised text: shuffled windows to train on, windows side by side to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from losslab.contracts import Batch, Share, Subset
from losslab.data.cache import TokenCache, TokenSplit
from losslab.data.windows import EvalWindows, TrainOrder, gather, hash_batches

_FEW_DOCUMENTS = 20
"""A split with fewer documents is halved by window."""


class TextSampler:
    """Batches of windows.

    Args:
        context: T, tokens in a window.
        memory: a folder that keeps orders of windows, which take seconds to work out for a large split.
    """

    def __init__(self, context: int, memory: Path | None = None) -> None:
        self.context = context
        self.memory = memory
        self.windows: dict[str, EvalWindows] = {}
        self._tokens: NDArray[Any] | None = None

    def take_cache(self, cache: TokenCache) -> None:
        """The splits of a prepared text."""
        self._tokens = cache.splits["train"].tokens
        for split, found in cache.splits.items():
            self.take(split, found, cache.meta["documents"][split])

    def take(self, split: str, tokens: TokenSplit, documents: int) -> None:
        """One split to evaluate on."""
        by_window = documents < _FEW_DOCUMENTS
        self.windows[split] = EvalWindows(tokens, self.context, by_window=by_window, memory=self.memory)

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
        starts = order.starts(step * batch_size + rows.start, rows.stop - rows.start)
        return gather(self.tokens, starts, self.context)

    def eval_batches(self, split: str, size: int, share: Share, subset: Subset, most: int | None) -> Iterator[Batch]:
        """All windows of `split`, or those that hold `most` positions (`EvalWindows.choose`), shared out among the
        ranks, none twice. `fit`: windows that hold at most `most` positions of the half that fits the temperature, for
        each rank the same."""
        windows = self.windows[split]
        if subset == "fit":
            return windows.fit_batches(size, windows.num_positions(None) if most is None else most)
        return windows.batches(size, rank=share.rank, ranks=share.ranks, most=most)
