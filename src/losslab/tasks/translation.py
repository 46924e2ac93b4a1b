"""Translation: predict a text from another, token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    Features,
    Generation,
    Meter,
    TargetKind,
    Task,
    padded,
)
from losslab.contracts.task import ColumnKind
from losslab.errors import UserError
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import PRIMARY, TOKEN_METRICS
from losslab.metrics.temperature import Temperature
from losslab.metrics.text_scores import TextScores
from losslab.metrics.translation_meter import TranslationMeter
from losslab.tasks.next_tokens import next_token_features

SOURCE, TARGET = "source", "target"


class Translation(Task):
    """Rows with the columns `source` and `target`, for a model that reads a source (`model=encoder_decoder`).

    The tokens of the target and the end of text after them are predicted from the source and from the target's tokens
    before each of them (teacher forcing); the first is predicted from the end of text, with which a target begins. What
    is longer than the context is cut at its end, source and target alone; a target that was cut has no end to predict.

    At the last and the best validation and on test, the network writes each target by beam search, and the texts are
    judged by BLEU and chrF against the targets as they were written, and further references of the data.

    Args:
        beams: hypotheses that the search keeps at each step; 1: greedy; 0: nothing is written, and there is no BLEU.
        length_penalty: α: a hypothesis of n tokens scores log p / n^α; above 0 long ones are favoured.

    Raises:
        UserError: for values out of range, and where sacrebleu is not installed.
    """

    accepts = frozenset({TargetKind.CLASSES})
    primary = PRIMARY
    provides = frozenset({"previous", "next"})
    causal = True
    reads_source = True
    columns: Mapping[str, ColumnKind] = MappingProxyType({SOURCE: "text", TARGET: "text"})
    predicted = (TARGET,)
    joined = (TARGET,)
    cut: Literal["longest", "left", "right"] = "right"

    def __init__(self, *, beams: int = 5, length_penalty: float = 1.0) -> None:
        if beams < 0:
            raise UserError(f"task.beams must be 0 or above, not {beams}")
        if not math.isfinite(length_penalty):
            raise UserError(f"task.length_penalty must be a finite number, not {length_penalty}")
        self.generation = Generation(beams, length_penalty) if beams else None
        self.scores = TextScores() if beams else None
        self._declare(1)

    def _declare(self, references: int) -> None:
        self.metrics = (*TOKEN_METRICS, *(() if self.scores is None else self.scores.metrics(references)))

    def bind(self, info: DataInfo) -> None:
        """Signatures of the metrics name the number of references."""
        self._declare(info.references)

    def told(self) -> str:
        return "the tokens of the target are predicted, and the end after them, from the source and the target so far"

    def target_size(self, info: DataInfo) -> int:
        """V of the target's tokenizer."""
        assert info.vocab_size is not None, "columns of text have a vocabulary"
        return info.vocab_size

    def source_inputs(self, sources: Sequence[Tensor]) -> dict[str, Tensor]:
        """Inputs for B sources, int64 [S_i] each, with their ends of text: `source` [B, S] and `source_mask`, bool
        [B, S], False in the padding."""
        tokens, mask = padded(sources)
        return {"source": tokens, "source_mask": mask}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`source_inputs`; `tokens` and `mask` of the target, and at each position the token after it."""
        tokens, mask = padded([example[TARGET][:-1] for example in examples])
        target, _ = padded([example[TARGET][1:] for example in examples])
        inputs = self.source_inputs([example[SOURCE] for example in examples])
        return Batch(inputs | {"tokens": tokens, "mask": mask}, target, mask.float(), {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and flatten: B targets of T positions become N = B · T rows.

        Args:
            needs: `previous`: how many of the target's tokens before each position to give along; `next`: how many of
                those after its own.
        """
        return next_token_features(backbone, batch, needs)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> Meter:
        tokens = ClassMeter(info, split, calibration["scale"], thorough=thorough)
        if self.scores is None or not thorough:
            return tokens
        return TranslationMeter(tokens, self.scores, info.splits[split].units if split == "test" else 0)
