"""Models whose next token depends on the whole text before, and slow searches over them in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import product

import torch
from torch import Tensor

END = 0
Prefix = tuple[int, ...]
Model = Callable[[Prefix], list[float]]
Found = list[tuple[float, Prefix]]
"""Scores and tokens, the end among them, best first."""


def prefix_model(seed: int, vocab_size: int, sharpness: float = 2.0) -> Model:
    """Text so far → float64 log-probabilities [V], drawn for each text."""

    @cache
    def model(prefix: Prefix) -> tuple[float, ...]:
        stream = torch.Generator().manual_seed(hash((seed, *prefix)) % 2**31)
        scores = sharpness * torch.randn(vocab_size, dtype=torch.float64, generator=stream)
        return tuple(scores.log_softmax(dim=0).tolist())

    return lambda prefix: list(model(prefix))


class PrefixSteps:
    """The step function of a model for each input."""

    def __init__(self, models: list[Model]) -> None:
        self.models = models
        self.texts: list[tuple[Model, Prefix]] = []
        self.calls: list[int] = []
        """Rows of each call."""

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        if not self.calls:
            self.texts = [(self.models[row], ()) for row in rows.tolist()]
        else:
            pairs = zip(rows.tolist(), tokens.tolist(), strict=True)
            self.texts = [(self.texts[row][0], (*self.texts[row][1], token)) for row, token in pairs]
        self.calls.append(len(rows))
        return torch.tensor([model(prefix) for model, prefix in self.texts], dtype=torch.float64)


def score(log_prob: float, length: int, length_penalty: float) -> float:
    return log_prob / length**length_penalty


def every_text(model: Model, vocab_size: int, longest: int, length_penalty: float) -> Found:
    """All texts that end, and all that are cut at the longest length."""
    found = []
    others = [token for token in range(vocab_size) if token != END]
    for length in range(longest):
        lasts = range(vocab_size) if length == longest - 1 else (END,)
        for text in product(*[others] * length, lasts):
            log_prob = math.fsum(model(text[:i])[token] for i, token in enumerate(text))
            found.append((score(log_prob, len(text), length_penalty), text))
    return sorted(found, reverse=True)


def slow_search(model: Model, longest: int, beams: int, length_penalty: float) -> Found:
    """Beam search of one input that never stops early."""
    running: list[tuple[float, Prefix]] = [(0.0, ())]
    finished: Found = []
    for length in range(1, longest + 1):
        every = [
            (total + value, (*text, token)) for total, text in running for token, value in enumerate(model(text))
        ]  # fmt: skip
        best = sorted(every, reverse=True)[: 2 * beams]
        leaves = [text[-1] == END or length == longest for _, text in best]
        finished += [
            (score(total, length, length_penalty), text)
            for (total, text), left in zip(best[:beams], leaves[:beams], strict=True) if left
        ]  # fmt: skip
        running = [each for each, left in zip(best, leaves, strict=True) if not left][:beams]
    return sorted(finished, reverse=True)[:beams]
