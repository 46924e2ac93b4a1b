"""Token-order prediction: which tokens come, and which of them sooner."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from losslab.contracts import Features, LossSum, OutputSpec, Projection
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.chunked_gradients import run_softmax, sum_softmax
from losslab.losses.execution import Chunk, Execution, LinearMap
from losslab.losses.further_outputs import sum_of_projection
from losslab.losses.gradient_sums import Gradients

_REACH = 104
"""The number of tokens ahead after which e^−d of the distance d is 0 in float32."""


class TokenOrder(Loss):
    """Token-order prediction: cross-entropy of the next token, and a ranking of those that come, the soonest first.

    Formula:
        ℓ = −log softmax(W h)_y − α Σ_v q_v log softmax(U h)_v, q = softmax(s), s_v = window − d_v where v comes next at
        the distance d_v ≤ window, −∞ where it does not come: the ranking loss ListNet. Its targets are those of the
        document, the row and what is scored.
    Gradient:
        softmax(W h) − onehot(y) in W h, and α (softmax(U h) − q) in U h.
    Source:
        Zuhri et al. 2025, arXiv:2508.19228; ListNet: Cao et al. 2007, Learning to rank: from pairwise approach to
        listwise approach.
    Use:
        For language models, as multi_token, at the cost of one more product with a matrix of the projection's size,
        however far it looks. The paper trains with α = 1 and the context as window.
    Weakness:
        q falls by a factor e from one new token to the next, so that three tokens hold 95% of it and those beyond 104
        nothing that float32 has. U takes the memory of a projection.
    Prediction:
        softmax(W h). An evaluation leaves the ranking out, so that nll is comparable.
    Posterior:
        η = p.

    Args:
        alpha: α, 0 or above.
        window: how many tokens ahead are ranked, the next included, 1 or above; null: all of the context.
    Raises:
        UserError: for values outside these ranges.
    """

    cost_class = "F3"
    shift_invariant = True
    is_proper = True
    forward_sums_scores = True
    trains_otherwise = True

    def __init__(self, *, alpha: float = 1.0, window: int | None = None) -> None:
        super().__init__()
        if not 0 <= alpha < math.inf:
            raise UserError(f"loss.alpha must be 0 or above and finite, not {alpha}")
        if window is not None and window < 1:
            raise UserError(f"loss.window must be 1 or above, not {window}")
        self.alpha = alpha
        self.window = window
        self.further = min(_REACH if window is None else window, _REACH) - 1
        """Tokens after the next that can have a share."""
        self.needs = {"next": self.further} if self.further else {}
        self.terms = ("next", "order")
        self.order: nn.Parameter
        """U, [V, D]."""

    def bind(self, spec: OutputSpec) -> None:
        drawn = torch.empty(spec.num_outputs, spec.hidden_size).normal_(std=0.02, generator=spec.generator)
        self.order = nn.Parameter(drawn)

    def further_flops(self, num_outputs: int, width: int) -> int:
        return 6 * num_outputs * width

    def forward(self, features: Features, projection: Projection) -> LossSum:
        """In training both terms; in an evaluation cross-entropy."""
        if not self.training:
            return run_softmax(self, features, projection)
        execution = Execution(self, features, projection)

        def add(chunk: Chunk, gradients: Gradients) -> Tensor:
            total = sum_softmax(execution, chunk, gradients, self.from_statistics)
            targets, term = self._shares(chunk.features), ("order", self.alpha)
            return total + sum_of_projection(execution, chunk, gradients, self.order, targets, term)

        return execution.run(add)

    def _shares(self, features: Features) -> tuple[Tensor, Tensor]:
        """q of the upcoming tokens, float32 [N, K], and these, int64 [N, K]."""
        tokens = features.target[:, None]
        if self.further:
            tokens = torch.cat([tokens, features.extras["next"][:, : self.further].long()], dim=-1)
        return order_shares(tokens), tokens.clamp(min=0)

    def from_log_prob(self, log_prob: Tensor) -> dict[str, Tensor]:
        return {"next": -log_prob}

    def written_as(self) -> str:
        """The term that predicts is a function of log p_y; `values` makes all logits, and is not what runs."""
        return "from_log_prob"

    def values(self, features: Features, projection: Projection) -> dict[str, Tensor]:
        """As `forward`, position by position, from the logits of all positions."""
        own = self.scores(features.hidden, projection).log_softmax(dim=-1)
        terms = {"next": -own.gather(-1, features.target[:, None])[:, 0]}
        if self.training:
            share, classes = self._shares(features)
            order = LinearMap(self.order.to(features.hidden.dtype), None)
            log_p = order(features.hidden).float().log_softmax(dim=-1)
            terms["order"] = -self.alpha * (share * log_p.gather(-1, classes)).sum(dim=-1)
        return terms

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)


def order_shares(tokens: Tensor) -> Tensor:
    """softmax(−d) over the distances d of the next occurrence of each class; float32 [N, K], 0 at later occurrences.

    Args:
        tokens: int [N, K], the nearest first; -1 where there is none. The first is one.
    """
    ordered, places = tokens.int().sort(dim=-1, stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    is_first = torch.zeros_like(is_first).scatter_(-1, places, is_first) & (tokens >= 0)
    share = torch.exp(-torch.arange(tokens.shape[1], dtype=torch.float32, device=tokens.device)) * is_first
    return share / share.sum(dim=-1, keepdim=True)
