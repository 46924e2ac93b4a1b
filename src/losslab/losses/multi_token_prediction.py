"""Multi-token prediction: further heads predict the tokens after the next.

A loss sees positions one by one, some at a time, so that a head that attends has no place in it. Head 1 is the model as
it is: a run differs from one of cross-entropy by its loss alone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.contracts import Features, LossSum, OutputSpec, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.chunked_gradients import run_softmax, sum_softmax
from losslab.losses.execution import Chunk, Execution
from losslab.losses.further_outputs import sum_of_states
from losslab.losses.gradient_sums import Gradients
from losslab.losses.softmax_stats import SoftmaxStats
from losslab.products import linear

_EXPANSION = 4
"""Width of a head's inner layer, as a multiple of the hidden states': that of a Transformer's."""


class MultiTokenPrediction(Loss):
    """Multi-token prediction: cross-entropy of the next token, and of those after it by heads of their own.

    Formula:
        ℓ = Σ_i λ_i (−log softmax(W h_i)_{y_i}), h_1 = h, h_i = h + B_i gelu(A_i h), y_i the i-th token after position
        t. Heads share W, and begin with B_i = 0. A token beyond the document, the row or what is scored has no part.
    Gradient:
        That of n cross-entropies, into W, h, A_i and B_i.
    Source:
        Gloeckle et al. 2024, arXiv:2404.19737; curricula: Aynetdinov & Akbik 2025, arXiv:2505.22757.
    Use:
        For language models: the hidden state is to hold what comes later, too. λ_i of 0.3 and below, as in
        DeepSeek-V3 (arXiv:2412.19437), disturb the next token less than 1.
    Weakness:
        A step costs n products with W. The gains are of large models; small ones mostly predict the next token worse,
        the least with curriculum=forward. The published heads are a Transformer layer each, on a model that has fewer
        layers for it; these are the half of one that does not attend to other positions, on the whole model.
    Prediction:
        softmax(W h), that of head 1 alone. An evaluation leaves the others out, so that nll is comparable.
    Posterior:
        η = p.

    Args:
        heads: n, 1 or above; 1 is cross-entropy. The paper's is 4, and 8 for bytes.
        weights: λ_i of each head, n numbers above 0; null: all 1.
        curriculum: none; forward: the first n-th of the steps trains head 1, the next one heads 1 and 2, and so on;
            reverse: from n heads down to 1.
    Raises:
        UserError: for values outside these ranges.
    """

    cost_class = "F1"
    shift_invariant = True
    is_proper = True
    forward_sums_scores = True
    trains_otherwise = True

    def __init__(
        self,
        *,
        heads: int = 4,
        weights: list[float] | None = None,
        curriculum: Literal["none", "forward", "reverse"] = "none",
    ) -> None:
        super().__init__()
        if heads < 1:
            raise UserError(f"loss.heads must be 1 or above, not {heads}")
        if weights is not None and (len(weights) != heads or not all(0 < weight < math.inf for weight in weights)):
            raise UserError(f"loss.weights must be {heads} finite numbers above 0, one for each head, not {weights}")
        self.heads = heads
        self.weights = [1.0] * heads if weights is None else weights
        self.curriculum = curriculum
        self.needs = {"next": heads - 1} if heads > 1 else {}
        self.terms = tuple(f"head_{i + 1}" for i in range(heads))
        self.active = heads
        """How many heads the present step trains."""
        self.inner = nn.ParameterList()
        """A_i of the heads from the second on, [4 D, D]."""
        self.outer = nn.ParameterList()
        """B_i, [D, 4 D]."""

    def bind(self, spec: OutputSpec) -> None:
        width = spec.hidden_size
        for _ in range(self.heads - 1):
            drawn = torch.empty(_EXPANSION * width, width).normal_(std=width**-0.5, generator=spec.generator)
            self.inner.append(nn.Parameter(drawn))
            self.outer.append(nn.Parameter(torch.zeros(width, _EXPANSION * width)))

    def begin_step(self, step: int, max_steps: int) -> None:
        stage = min(self.heads * step // max_steps, self.heads - 1)
        self.active = {"none": self.heads, "forward": 1 + stage, "reverse": self.heads - stage}[self.curriculum]

    def further_flops(self, num_outputs: int, width: int) -> int:
        of_head = 6 * width * (num_outputs + 2 * _EXPANSION * width)
        flops = (self.heads - 1) * of_head
        return flops if self.curriculum == "none" else flops // 2  # the mean over its stages

    def forward(self, features: Features, projection: Projection) -> LossSum:
        """In training, the sum over the heads; in an evaluation, head 1."""
        if not self.training:
            return run_softmax(self, features, projection)
        execution = Execution(self, features, projection)

        def add(chunk: Chunk, gradients: Gradients) -> Tensor:
            total = sum_softmax(execution, chunk, gradients, self.from_statistics)
            for i, target in self._further(chunk.features):
                change, formula = partial(self._ahead, i), partial(self._of_head, i)
                total = total + sum_of_states(execution, chunk, gradients, change, target, formula)
            return total

        return execution.run(add)

    def _further(self, features: Features) -> list[tuple[int, Tensor]]:
        """Number of each head beyond the first that is trained now, from 1, and its targets [N]; -1 where none is."""
        if self.active == 1:
            return []
        columns = features.extras["next"].unbind(dim=1)  # a window may be shorter than the heads reach
        return list(enumerate(columns[: self.active - 1], start=1))

    def _ahead(self, i: int, hidden: Tensor) -> Tensor:
        """h_{i+1} [N, D]."""
        inner = F.gelu(linear(hidden, self.inner[i - 1].to(hidden.dtype)))
        return hidden + linear(inner, self.outer[i - 1].to(hidden.dtype))

    def _of_head(self, i: int, statistics: SoftmaxStats) -> dict[str, Tensor]:
        return {self.terms[i]: -self.weights[i] * statistics.log_prob}

    def written_as(self) -> str:
        """Each head is a function of log p_y; `values` gives the same sum over all logits, which is not what runs."""
        return "from_log_prob"

    def from_log_prob(self, log_prob: Tensor) -> dict[str, Tensor]:
        return {self.terms[0]: -self.weights[0] * log_prob}

    def values(self, features: Features, projection: Projection) -> dict[str, Tensor]:
        """As `forward`, position by position, from the logits of all positions."""
        terms = dict(self.from_log_prob(self._log_prob(features.hidden, features.target, projection)))
        for i, target in self._further(features) if self.training else []:
            log_prob = self._log_prob(self._ahead(i, features.hidden), target.long().clamp(min=0), projection)
            terms[self.terms[i]] = -self.weights[i] * log_prob.masked_fill(target < 0, 0.0)
        return terms

    def _log_prob(self, hidden: Tensor, target: Tensor, projection: Projection) -> Tensor:
        return self.scores(hidden, projection).log_softmax(dim=-1).gather(-1, target[:, None])[:, 0]

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)
