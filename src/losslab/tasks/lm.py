"""Language modelling: predict the next token at every position."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Batch, Features, TargetKind
from losslab.metric import Metric
from losslab.metrics.table import METRICS, PRIMARY


class LanguageModeling:
    """All positions are selected; the batch already pairs each input with the token that follows it."""

    target_kind = TargetKind.CLASSES
    metrics: tuple[Metric, ...] = METRICS
    """Everything that an evaluation may give, in the order of tables."""
    primary = PRIMARY
    """The metric that chooses the best checkpoint."""

    def features(self, backbone: Callable[[Tensor], Tensor], batch: Batch, previous_tokens: int = 0) -> Features:
        """Run the backbone and flatten: B windows of T positions become N = B · T rows.

        Args:
            previous_tokens: how many of the tokens before each target to give along, within its window.
        """
        hidden = backbone(batch.inputs)
        extras = {name: value.flatten() for name, value in batch.extras.items()}
        if previous_tokens:
            extras["previous"] = _previous(batch.inputs, previous_tokens).flatten(0, 1)
        return Features(
            hidden=hidden.flatten(0, 1),
            target=batch.target.flatten(),
            weight=batch.weight.flatten(),
            extras=extras,
        )


def _previous(inputs: Tensor, count: int) -> Tensor:
    """int32 [B, T, K], K at most T: the inputs up to each position, the latest first; -1 before the first."""
    count = min(count, inputs.shape[1])
    return F.pad(inputs.int(), (count - 1, 0), value=-1).unfold(1, count, 1).flip(-1)
