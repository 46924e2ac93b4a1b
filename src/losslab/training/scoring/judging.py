"""The dear part of a thorough evaluation: the network writes the texts of a split, and the meter judges them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, distributed

from losslab.contracts import Batch, Features, Generation, LossSum, Meter, Projection, no_objective
from losslab.data.tokenizer import Tokenizer
from losslab.losses.base import Loss
from losslab.training.generation.writer import TextWriter
from losslab.training.network import Network, Observer

Advance = Callable[[int], None]
"""Takes the number of texts that were written since it was called last."""
Work = Callable[[str, int], AbstractContextManager[Advance]]
"""Shows how far work has come, from what it is and how much of it there is."""

Run = Callable[[Iterable[Batch | None], Observer], None]
"""Shows an observer the loss and the projection in a forward of the network, whose weights are whole there alone."""


@contextmanager
def in_silence(what: str, total: int) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda count: None


class TextJudge:
    """Lets a network write, for each sample of this rank.

    Args:
        tokenizer: of the outputs.
        references: of each sample by its `id`; None: what its target decodes to.
        context: the longest output, where the model does not say so.
        ranks: more than one make each step of a search together, for sharded networks need each rank at every forward.
    """

    def __init__(
        self,
        network: Network,
        generation: Generation,
        tokenizer: Tokenizer,
        references: Sequence[Sequence[str]] | None,
        *,
        context: int | None,
        ranks: int,
        device: torch.device,
    ) -> None:
        self.tokenizer = tokenizer
        self.references = references
        self._ranks = ranks
        self._device = device
        self._writer = TextWriter(network, tokenizer, generation, context=context, agree=self._agree)

    def judge(self, batches: Iterable[Batch], meter: Meter, run: Run, advance: Advance) -> None:
        """Write the texts of the batches, and hand them to the meter.

        Args:
            batches: on the device; samples without weight are no texts.
            run: see `Run`.
        """
        for batch in batches:
            texts = self._written(batch, run)
            there = [i for i, any_weight in enumerate((batch.weight > 0).any(dim=1).tolist()) if any_weight]
            if there:
                references = [self._references(batch, i) for i in there]
                meter.judge([texts[i] for i in there], references, [_of_sample(batch, "unit", i) for i in there])
            advance(len(there))

    def _written(self, batch: Batch, run: Run) -> list[str]:
        found: list[str] = []

        def write(_: Features | None, loss: Loss, projection: Projection) -> LossSum:
            found.extend(written.text for (written,) in self._writer(batch.inputs))
            return no_objective(projection.weight)

        run([None], write)
        return found

    def _references(self, batch: Batch, i: int) -> Sequence[str]:
        if self.references is not None:
            return self.references[_of_sample(batch, "id", i)]
        target: Tensor = batch.target[i][batch.weight[i] > 0]
        return [self.tokenizer.decode([token for token in target.tolist() if token != self.tokenizer.end])]

    def _agree(self, more: bool) -> bool:
        if self._ranks == 1:
            return more
        found = torch.tensor(int(more), device=self._device)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return bool(found)


def _of_sample(batch: Batch, extra: str, i: int) -> int:
    """An extra of a sample that is the same at each of its positions; 0 where batches have none."""
    values = batch.extras.get(extra)
    return 0 if values is None else int(values.flatten(1)[i, 0])
