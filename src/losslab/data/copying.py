"""Made-up sequences to be copied or reversed: whether a model can learn at all, in a minute."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import Task
from losslab.data.samples import SamplesDataModule
from losslab.errors import UserError

BEGIN, END, MARKS = 0, 1, 2
"""Tokens that stand before and behind a sequence, and their number: the symbols come after them."""


class CopiedSequences(SamplesDataModule):
    """Sequences of random symbols, and the same sequences, or reversed, as answers. They are made from hashes, the same
    for every seed; no two are alike, so that val and test hold none of train's.

    Args:
        reverse: the answer is the sequence from its end.
        length: symbols in a sequence.
        symbols: how many there are to draw from.
        rows: sequences of train.
        eval_rows: of val, and of test.
        batch_size: sequences in one optimizer step, over all devices and micro-batches.
        val_batch_size: sequences evaluated at once on each device.

    Raises:
        UserError: for sizes below 1 (2 for symbols), and more sequences than half of those that there are.
    """

    def __init__(
        self,
        *,
        reverse: bool = False,
        length: int = 8,
        symbols: int = 8,
        rows: int = 20_000,
        eval_rows: int = 500,
        batch_size: int = 64,
        val_batch_size: int = 250,
    ) -> None:
        super().__init__(batch_size=batch_size, val_batch_size=val_batch_size)
        sizes = {"length": (length, 1), "symbols": (symbols, 2), "rows": (rows, 1), "eval_rows": (eval_rows, 2)}
        for name, (size, least) in sizes.items():
            if size < least:
                raise UserError(f"data.{name} must be {least} or above, not {size}")
        asked = rows + 2 * eval_rows
        if 2 * asked > symbols**length:
            raise UserError(
                f"data: {asked:,} sequences are asked for (data.rows and twice data.eval_rows), and there are "
                f"{symbols**length:,} of data.length={length} and data.symbols={symbols}: ask for fewer than half"
            )
        self.reverse = reverse
        self.length = length
        self.symbols = symbols
        self.sizes = {"val": eval_rows, "test": eval_rows, "train": rows}
        self.vocab_size = MARKS + symbols

    def check_task(self, task: Task) -> None:
        """Raises UserError for a task that reads rows, a stream or questions."""
        if task.columns or task.of_stream or task.points:
            raise UserError(
                f"data=copying gives sequences and answers, and {chosen('task', task)} reads none: choose task=copying"
            )
        super().check_task(task)

    def datasets(self) -> Mapping[str, Sequence[tuple[Tensor, Tensor]]]:
        """Split → pairs of a sequence and its answer, int64 [length] each."""
        sequences = self._distinct()
        return {split: [self._pair(next(sequences)) for _ in range(size)] for split, size in self.sizes.items()}

    def _pair(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        return sequence, sequence.flip(0) if self.reverse else sequence

    def _distinct(self) -> Iterator[Tensor]:
        seen: set[bytes] = set()
        number = 0
        while True:
            drawn = np.frombuffer(hashlib.shake_256(b"%d" % number).digest(4 * self.length), dtype="<u4")
            sequence = MARKS + drawn.astype(np.int64) % self.symbols
            number += 1
            if (content := sequence.tobytes()) not in seen:
                seen.add(content)
                yield torch.from_numpy(sequence)
