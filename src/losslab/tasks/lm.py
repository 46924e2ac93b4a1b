"""Language modelling: predict the next token at every position."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from losslab.types import Batch, Features, TargetKind


class LanguageModeling:
    """All positions are selected; the batch already pairs each input with the token that follows it."""

    target_kind = TargetKind.CLASSES

    def features(self, backbone: Callable[[Tensor], Tensor], batch: Batch) -> Features:
        """Run the backbone and flatten: B windows of T positions become N = B · T rows."""
        hidden = backbone(batch.inputs)
        return Features(
            hidden=hidden.flatten(0, 1),
            target=batch.target.flatten(),
            weight=batch.weight.flatten(),
            extras={name: value.flatten() for name, value in batch.extras.items()},
        )
