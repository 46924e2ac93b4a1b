"""Language modelling over prompts: predict the tokens of a completion after its prompt, and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch

from losslab.contracts import (
    Backbone,
    Batch,
    DataInfo,
    Features,
    TargetKind,
    Task,
    padded,
)
from losslab.contracts.task import ColumnKind
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.table import PRIMARY, TOKEN_METRICS
from losslab.metrics.temperature import Temperature
from losslab.tasks.next_tokens import next_token_features


class Completion(Task):
    """Rows with the columns `prompt` and `completion`, read as one running text: the end of text, the prompt, the
    completion, the end of text. The tokens of the completion and the end after it are targets; those of the prompt have
    the weight 0, in training and in every metric.

    Args:
        cut: where a row that is longer than the context loses tokens. left: the beginning of the prompt. right: the end
            of the completion; a row whose prompt fills the context has nothing to predict then, and is counted.
    """

    accepts = frozenset({TargetKind.CLASSES})
    metrics = TOKEN_METRICS
    primary = PRIMARY
    provides = frozenset({"previous", "next"})
    causal = True
    predicts_tokens = True
    columns: Mapping[str, ColumnKind] = MappingProxyType({"prompt": "text", "completion": "text"})
    joined = ("prompt", "completion")

    def __init__(self, *, cut: Literal["left", "right"] = "left") -> None:
        self.cut = cut

    def told(self) -> str:
        return "the tokens of the completion are predicted, and the end after them; those of the prompt are not"

    def target_size(self, info: DataInfo) -> int:
        """V of the tokenizer in use."""
        assert info.vocab_size is not None, "columns of text have a vocabulary"
        return info.vocab_size

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`tokens` and `mask`, and at each position the token after it; weight 1 where that is the completion's."""
        texts = [torch.cat([example["prompt"], example["completion"]]) for example in examples]
        tokens, mask = padded([text[:-1] for text in texts])
        target, _ = padded([text[1:] for text in texts])
        first = torch.tensor([len(example["prompt"]) for example in examples]) - 1
        weight = (torch.arange(tokens.shape[1]) >= first[:, None]) & mask
        return Batch({"tokens": tokens, "mask": mask}, target, weight.float(), {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and flatten: B rows of T positions become N = B · T rows.

        Args:
            needs: `previous`: how many of the tokens before each target to give along, the prompt's among them; `next`:
                how many of the targets after it, the completion's alone.
        """
        return next_token_features(backbone, batch, needs)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ClassMeter:
        return ClassMeter(info, split, calibration["scale"], thorough=thorough)
