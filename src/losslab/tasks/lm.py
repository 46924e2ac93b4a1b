"""Language modelling: predict the next token at every position."""

from __future__ import annotations

from collections.abc import Mapping

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    Features,
    TargetKind,
    Task,
)
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import METRICS, PRIMARY
from losslab.metrics.temperature import Temperature
from losslab.tasks.next_tokens import next_token_features


class LanguageModeling(Task):
    """All positions are selected; the batch already pairs each input with the token that follows it."""

    accepts = frozenset({TargetKind.CLASSES})
    metrics = METRICS
    primary = PRIMARY
    provides = frozenset({"previous", "next"})
    causal = True
    of_stream = True
    predicts_tokens = True

    def target_size(self, info: DataInfo) -> int:
        """V of the tokenizer in use; a short text can train fewer tokens than vocab_size asks for."""
        assert info.vocab_size is not None, "a stream of tokens has a vocabulary"
        return info.vocab_size

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and flatten: B windows of T positions become N = B · T rows.

        Args:
            needs: `previous`: how many of the tokens before each target to give along; `next`: how many of the targets
                after it; within its window and document.
        """
        return next_token_features(backbone, batch, needs)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ClassMeter:
        return ClassMeter(info, split, calibration["scale"], thorough=thorough)
