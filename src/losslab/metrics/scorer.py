"""Members of a loss that the metrics call. Every `losses.base.Loss` has them; metrics import no loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from losslab.contracts import Features, LossSum, Projection


class Scorer(Protocol):
    """Objective and predictions; see `losses.base.Loss` for each."""

    @property
    def is_proper(self) -> bool: ...

    @property
    def position_wise(self) -> bool: ...

    def __call__(self, features: Features, projection: Projection) -> LossSum: ...

    def from_scores(
        self, features: Features, projection: Projection, logits: Tensor, logsumexp: Tensor | None
    ) -> LossSum | None: ...

    def num_classes(self, num_outputs: int) -> int: ...

    def softmax_factor(self) -> float | None: ...

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor: ...

    def calibrate(self, scale: float) -> None: ...

    def predict_log_probs(self, logits: Tensor) -> Tensor: ...

    def posterior(self, logits: Tensor) -> Tensor | None: ...

    def posterior_reads_softmax(self) -> bool: ...

    def posterior_of_softmax(self, p: Tensor, log_p: Tensor) -> Tensor | None: ...


class ValueScorer(Protocol):
    """Objective and predictions of a loss whose targets are values; see `losses.base.Loss` for each."""

    levels: tuple[float, ...]

    def __call__(self, features: Features, projection: Projection) -> LossSum: ...

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor: ...

    def predict_values(self, logits: Tensor) -> Tensor: ...

    def log_density(self, logits: Tensor, target: Tensor) -> Tensor | None: ...

    def predict_quantiles(self, logits: Tensor, levels: Sequence[float]) -> Tensor | None: ...
