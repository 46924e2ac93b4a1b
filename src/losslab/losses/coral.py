"""CORAL: classes that have an order, by one score and a threshold between each class and the next."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.contracts import OutputSpec
from losslab.errors import UserError
from losslab.losses.base import Loss

_NEAREST = 1e-6
"""A lower bound of the distance of two thresholds: a class between equal ones would have no probability."""
_SMALLEST = -600.0
"""A logarithm whose exponential float64 holds."""


class Coral(Loss):
    """CORAL, for classes that have an order: one score of a position, and a threshold between each class and the next.

    Formula:
        ℓ = −Σ_{k<K} ([y > k] log P(y > k) + [y ≤ k] log P(y ≤ k)), P(y > k) = s(f + b_k), s the sigmoid, for classes 1
        to K, one score f = w · h, and K − 1 biases b_k.
    Gradient:
        ∂ℓ/∂f = Σ_k (s(f + b_k) − [y > k]).
    Source:
        Cao, Mirjalili & Raschka 2020, arXiv:1901.07884.
    Use:
        For grades, ages and stars, where a near miss is better than a far one. The projection has one output.
    Weakness:
        One direction of the hidden states decides all classes, so that the backbone must lay them out along it; two
        classes that lie apart from the order are not told apart.
    Prediction:
        P(y = k) = P(y > k − 1) − P(y > k). The biases are taken in descending order, as they are at the minimum
        (theorem 1 of the paper), so that no probability is negative.
    Posterior:
        η = p.

    Args:
        order: the labels from the lowest to the highest; null: they are numbers, or the classes have no names and are
            in order.
    Raises:
        UserError: in `bind`, for labels that are no numbers and have no order, an order that lacks some, and one class.
    """

    per_class = True
    shift_invariant = True
    is_proper = True

    def __init__(self, *, order: list[str] | None = None) -> None:
        super().__init__()
        if order is not None and len(set(order)) != len(order):
            raise UserError(f"loss.order names a label twice: {', '.join(order)}")
        self.order = order
        self.rank: Tensor  # int64 [K]: the place of each class in the order, from 0
        self.biases: nn.Parameter  # [K − 1]

    def num_outputs(self, size: int) -> int:
        return 1

    def num_classes(self, num_outputs: int) -> int:
        return len(self.rank)

    def bind(self, spec: OutputSpec) -> None:
        """Begin with thresholds under which f = 0 predicts every class alike."""
        size = spec.num_classes
        if spec.num_outputs != 1 or size < 2:
            raise UserError(
                f"{type(self).__name__} needs a projection of one output and two classes or more, not "
                f"{spec.num_outputs:,} and {size:,} (LinearLoss is given their number by class_counts)"
            )
        self.register_buffer("rank", torch.tensor(_ranks(self.order, spec.labels, size)))
        share = torch.arange(1, size, dtype=torch.float64) / size
        self.biases = nn.Parameter(torch.logit(1 - share).float())

    def map_logits(self, logits: Tensor) -> Tensor:
        """log P(y = k) [N, K] of the score [N, 1]."""
        biases = self.biases.to(logits.dtype).sort(descending=True).values
        above, below = F.logsigmoid(logits + biases), F.logsigmoid(-(logits + biases))
        gaps = (biases[:-1] - biases[1:]).clamp(min=_NEAREST)
        middle = above[:, :-1] + below[:, 1:] + (-torch.expm1(-gaps)).log()
        return torch.cat([below[:, :1], middle, above[:, -1:]], dim=-1).index_select(-1, self.rank)

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=-1).index_select(-1, self.rank.argsort())
        below = _log_cumulative(log_p)[:, :-1]
        above = _log_cumulative(log_p.flip(-1)).flip(-1)[:, 1:]
        higher = self.rank[target][:, None] > torch.arange(below.shape[-1], device=target.device)
        return -torch.where(higher, above, below).sum(dim=-1)

    def posterior(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)


def _log_cumulative(log_p: Tensor) -> Tensor:
    """log Σ_{i≤k} p_i [N, K]; on a CPU, where no p underflows, by float64 sums, many times as quick as logcumsumexp."""
    if log_p.device.type == "cpu" and log_p.numel() and log_p.detach().amin() > _SMALLEST:
        return log_p.double().exp().cumsum(dim=-1).log().to(log_p.dtype)
    return log_p.logcumsumexp(dim=-1)


def _ranks(order: list[str] | None, labels: tuple[str, ...] | None, size: int) -> list[int]:
    """The place of each class in the order."""
    if labels is None:
        if order is not None:
            raise UserError("loss.order names labels, and these classes have none; leave it out")
        return list(range(size))
    if order is not None:
        if odd := sorted({*order} ^ {*labels}):
            what = "lacks the label" if odd[0] in labels else "names a label that train lacks:"
            raise UserError(f"loss.order {what} {odd[0]}; the labels are {', '.join(labels)}")
        return [order.index(label) for label in labels]
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        raise UserError(
            f"loss=coral needs the order of the labels, which are no numbers: give it from the lowest to the highest, "
            f"loss.order=[{','.join(labels)}]"
        ) from None
    return [sorted(numbers).index(number) for number in numbers]
