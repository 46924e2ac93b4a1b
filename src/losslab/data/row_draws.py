"""The tokens that a task hides in a batch of rows."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from losslab.contracts import Batch, Task
from losslab.data.row_store import RowStore
from losslab.data.sampler import row_seeds
from losslab.data.tokenizer import tokenizer_of
from losslab.data.word_starts import vocabulary_of


class RowDraws:
    """`Task.draw` for the rows of a store; a task without `masks` draws nothing."""

    def __init__(self, task: Task, store: RowStore) -> None:
        self.task = task
        tokenizer = tokenizer_of(store.meta["artifacts"]) if task.masks else None
        self.vocabulary = None if tokenizer is None else vocabulary_of(tokenizer)

    def __call__(self, batch: Batch, stream: str, numbers: NDArray[Any]) -> Batch:
        """The batch as the model reads it.

        Args:
            stream: a name, of train with the data's seed.
            numbers: [B], of each sample in the stream.
        """
        if self.vocabulary is None:
            return batch
        return self.task.draw(batch, row_seeds(stream, numbers), self.vocabulary)
