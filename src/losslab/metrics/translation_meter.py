"""The meter of tasks that write texts: metrics of tokens under teacher forcing, and of the written texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Features, LossSum, Meter, Projection
from losslab.contracts.task import Combined
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.scorer import Scorer
from losslab.metrics.text_scores import TextScores

_TEXTS = "texts"


class TranslationMeter(Meter):
    """A thorough `ClassMeter`, with the scores of texts.

    Args:
        tokens: of the positions of the targets.
        scores: of the texts that `judge` takes in.
        units: how many units have counts of their own; 0: none.
    """

    def __init__(self, tokens: ClassMeter, scores: TextScores, units: int) -> None:
        self.tokens = tokens
        self.scores = scores
        self.units = units
        self.counts = torch.zeros(scores.size, max(units, 1), dtype=torch.float64)

    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        return self.tokens.update(features, loss, projection)

    def judge(self, written: Sequence[str], references: Sequence[Sequence[str]], units: Sequence[int]) -> None:
        places = torch.tensor(units) if self.units else torch.zeros(len(units), dtype=torch.int64)
        found = self.scores.counts(written, references).T
        self.counts.index_add_(1, places.to(self.counts.device), found.to(self.counts.device))

    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        return {**self.tokens.states(), _TEXTS: (self.counts, "sum")}

    def combine(self, states: dict[str, Tensor]) -> None:
        self.counts = states[_TEXTS].to(torch.float64)
        self.tokens.combine({name: state for name, state in states.items() if name != _TEXTS})

    def values(self) -> dict[str, float]:
        return {**self.scores.values(self.counts.sum(dim=1)), **self.tokens.values()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        found = self.tokens.arrays()
        if self.units:
            apart = self.scores.apart(self.counts.cpu())
            found |= {f"{name}_counts": counts.numpy().astype(np.int32) for name, counts in apart.items()}
        return found
