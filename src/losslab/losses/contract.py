"""Members of a loss that the engine calls: it runs any object that has them, and imports no loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor, nn

from losslab.contracts import Features, Projection, TargetKind, Values
from losslab.losses.softmax_stats import SoftmaxStats


class DividedLoss(Protocol):
    """Members from which a loss's denominator follows; see `losses.base.Loss` for each."""

    needs: Mapping[str, int]

    def select(self, features: Features) -> Features: ...

    def position_weight(self, features: Features) -> Tensor | None: ...


class TargetedLoss(Protocol):
    """Declarations against which targets are checked; see `losses.base.Loss` for each."""

    target_kind: TargetKind

    def num_outputs(self, size: int) -> int: ...

    def num_classes(self, num_outputs: int) -> int: ...


class RunnableLoss(TargetedLoss, Protocol):
    """Declarations and functions from which a loss's sums and gradients are computed; see `losses.base.Loss`."""

    position_wise: bool
    exact_products: bool
    temperature: float
    terms: tuple[str, ...]

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def written_as(self) -> str: ...

    def select(self, features: Features) -> Features: ...

    def adapt(self, hidden: Tensor, projection: Projection) -> tuple[Tensor, Projection]: ...

    def position_weight(self, features: Features) -> Tensor | None: ...

    def linear_weights(self, num_outputs: int) -> Tensor | None: ...

    def map_logits(self, logits: Tensor) -> Tensor: ...

    def from_statistics(self, statistics: SoftmaxStats) -> Values: ...

    def from_logits(self, logits: Tensor, features: Features) -> Values: ...

    def values(self, features: Features, projection: Projection) -> Values: ...

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor: ...
