"""The choice of the next token: greedy, or drawn after temperature, top-k and top-p."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from losslab.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A distribution made of the model's own, and draws from it. The steps below follow one another.

    Raises:
        UserError: for values outside these ranges.
    """

    temperature: float = 1.0
    """T, 0 or above: p^(1 / T), normalised; 0 always takes the most probable token."""
    top_k: int | None = None
    """Keep the k most probable tokens, 1 or more; of equally probable ones, those with the smaller ids."""
    top_p: float = 1.0
    """Keep the most probable tokens up to the first at which their sum reaches p, in (0, 1] (Holtzman et al. 2019,
    arXiv:1904.09751): always one at least."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be 0 or above and finite, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be 1 or more, not {self.top_k}; without it all tokens are kept")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}")

    def probabilities(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities [V] → float64 [V], which sum to 1; −∞ stays without probability."""
        log_probs = log_probs.double()
        if self.temperature == 0:
            chosen = torch.zeros_like(log_probs)
            chosen[int(log_probs.argmax())] = 1
            return chosen
        p = ((log_probs - log_probs.max()) / self.temperature).softmax(dim=-1)
        if self.top_k is None and self.top_p == 1:
            return p
        order = p.argsort(descending=True, stable=True)
        if self.top_k is not None:
            p = _without(p, order[self.top_k :])
        if self.top_p < 1:
            reached = p[order].cumsum(dim=-1) >= self.top_p
            p = _without(p, order[1:][reached[:-1]])
        return p

    def draw(self, log_probs: Tensor, stream: torch.Generator) -> int:
        """The id of one token, by one number of the stream, whatever the sizes of the distribution."""
        shares = self.probabilities(log_probs.cpu()).cumsum(dim=-1)
        number = torch.rand((), dtype=torch.float64, generator=stream)
        return int(torch.searchsorted(shares / shares[-1], number, right=True))


def _without(p: Tensor, removed: Tensor) -> Tensor:
    """The distribution p [V] without the classes of these ids, normalised."""
    kept = p.index_fill(0, removed, 0.0)
    return kept / kept.sum()
