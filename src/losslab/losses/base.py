"""The contract of a final loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from losslab.losses.execution import run_dense
from losslab.types import Features, LossSum, OutputSpec, Projection, TargetKind


class Loss(nn.Module, ABC):
    """A final loss: from hidden states and the output projection to sums.

    The author of an ordinary loss writes `position_loss` and inherits masking and precision. A fused, sampled or
    logit-free loss overrides `forward` and reads `projection.weight`; nothing outside asks which kind it is.

    Constructors are keyword-only and typed: the signature is the schema of the yaml in conf/loss.
    """

    target_kind: ClassVar[TargetKind] = TargetKind.CLASSES
    cost_class: ClassVar[str] = "F3"
    """What it needs of the logits, F1 (z_y and logsumexp) … F6 (a sampled subset); F3 is any sum over them."""

    def bind(self, spec: OutputSpec) -> None:
        """Receive the sizes, once they are known; create parameters here. The default needs nothing."""

    @abstractmethod
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each position, unreduced.

        Args:
            logits: float32 [N, V].
            target: [N] classes (or what `target_kind` says).

        Returns:
            float32 [N].
        """

    def position_weight(self, target: Tensor) -> Tensor | None:
        """[N]: each position's share in the denominator, on top of `features.weight`; None is 1."""
        return None

    def forward(self, features: Features, projection: Projection) -> LossSum:
        """Σ weight · position loss over the positions with weight, and Σ weight; float32 scalars.

        All-ignored gives 0 with zero, graph-connected gradients.
        """
        return run_dense(self, features, projection)

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor:
        """What the predictions are made from: float32 [N, V]."""
        return projection(hidden.to(projection.weight.dtype)).float()

    def calibrate(self, scale: float) -> None:
        """Receive the scale s that nll_scaled fitted; a loss whose scores are no log-probabilities predicts with it."""

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        """The log-probabilities [N, V] that the model predicts with. Default: softmax."""
        return logits.log_softmax(dim=-1)

    def posterior(self, logits: Tensor) -> Tensor | None:
        """The class probabilities [N, V] under which `logits` would minimise the expected loss, before clipping and
        renormalising, or None where they have no closed form."""
        return None
