"""Texts out of sources, by a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losslab.choices import chosen
from losslab.contracts import DataInfo, Generation
from losslab.data.source_tokenizer import source_tokenizer_of
from losslab.data.text_columns import encode_texts
from losslab.data.tokenizer import tokenizer_of
from losslab.errors import UserError
from losslab.training.generation.prediction import ForwardContext
from losslab.training.generation.writer import TextWriter
from losslab.training.network import Network

_COLUMN = "source"
_LINE_ENDS = str.maketrans({"\n": " ", "\r": " "})


class Translator:
    """Writes a line for each line: `Translator(network, info, data, autocast, beams=5)(["Guten Morgen."])`.

    Args:
        network: in evaluation mode, on the device that is to work, of a task that reads a source.
        info: of the data that it was trained on.
        data: the run's data configuration.
        forward_context: makes the context of each forward pass.
        beams, length_penalty: see `Generation`; None: those of the run's task.
        batch: lines that are read at once, 1 or more; no line's output depends on it.

    Raises:
        UserError: for another task, and for settings out of range.
    """

    def __init__(
        self,
        network: Network,
        info: DataInfo,
        data: Mapping[str, Any],
        forward_context: ForwardContext,
        *,
        beams: int | None = None,
        length_penalty: float | None = None,
        batch: int = 32,
    ) -> None:
        task = network.task
        if not task.reads_source:
            instead = "losslab generate" if task.continues_texts else "losslab predict"
            raise UserError(
                f"losslab translate is for runs that write a text from another (task=translation), and this one is "
                f"one of {chosen('task', task)}: {instead}"
            )
        own = task.generation or Generation()
        generation = Generation(
            own.beams if beams is None else beams, own.length_penalty if length_penalty is None else length_penalty
        )
        tokenizer, of_target = source_tokenizer_of(info.artifacts), tokenizer_of(info.artifacts)
        assert tokenizer is not None and of_target is not None, "source and target have tokenizers"
        self.batch = batch
        self.longer = 0
        """Sources so far that were longer than the context, and were cut off."""
        self.unended = 0
        """Outputs so far that reached the longest length, and were cut off there."""
        self.context = int(data["context"])
        self.generation = generation
        self._task = task
        self._source = tokenizer
        self._device = network.projection.weight.device
        self._writer = TextWriter(network, of_target, generation, context=self.context, forward_context=forward_context)

    def notes(self) -> list[str]:
        """Sentences for people: what was cut off so far."""
        found = []
        if self.longer:
            found.append(f"sources longer than data.context={self.context}: {self.longer:,}, cut off at their end")
        if self.unended:
            found.append(
                f"outputs that did not end within the {self.context} tokens that the model reads: {self.unended:,}, "
                "cut off there"
            )
        return found

    def __call__(self, lines: Sequence[str]) -> list[str]:
        """One line for each; an empty one, or one of spaces alone, for such a line."""
        found = [""] * len(lines)
        full = [i for i, line in enumerate(lines) if line.strip()]
        if not full:
            return found
        encoded, longer = encode_texts([_COLUMN], (), [{_COLUMN: lines[i]} for i in full], self._source, self.context)
        self.longer += longer
        values, counts = encoded[_COLUMN]
        pieces = np.split(values.astype(np.int64), np.cumsum(counts)[:-1])
        tokens = dict(zip(full, map(torch.from_numpy, pieces), strict=True))
        by_length = sorted(full, key=lambda i: len(tokens[i]))
        for start in range(0, len(by_length), self.batch):
            part = by_length[start : start + self.batch]
            for i, text in zip(part, self._written([tokens[i] for i in part]), strict=True):
                found[i] = text
        return found

    def _written(self, sources: list[Tensor]) -> list[str]:
        inputs = self._task.source_inputs(sources)
        inputs |= {"tokens": torch.full((len(sources), 1), self._writer.end)}
        written = [best for (best,) in self._writer({name: value.to(self._device) for name, value in inputs.items()})]
        self.unended += sum(not each.ended for each in written)
        return [each.text.translate(_LINE_ENDS) for each in written]
