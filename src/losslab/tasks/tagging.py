"""Tagging: one class for each word of a sentence, and the entities that the tags mark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from losslab.contracts import Backbone, Batch, DataInfo, Features, Meter, TargetKind, Task, flat_hidden, padded
from losslab.contracts.task import ColumnKind
from losslab.errors import UserError
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.entities import ENTITY_METRICS, EntityRule
from losslab.metrics.table import CLASS_METRICS, PRIMARY
from losslab.metrics.tag_meter import TagMeter
from losslab.metrics.temperature import Temperature

_LABELS, _TAGS = "labels.json", "tags"


class Tagging(Task):
    """Every word's hidden state is projected to a class. Words beyond the context are cut off, and neither they nor the
    entities that they belong to are scored, unless the data reads long rows in windows.

    Args:
        entities: tags mark entities (O, B-PER, I-PER; IOB1 and IOBES are read by the same rule), whose F1 is the
            primary metric; false: tags such as parts of speech, and the primary metric is nll_scaled.
    """

    accepts = frozenset({TargetKind.CLASSES, TargetKind.DISTRIBUTIONS, TargetKind.LABELS})
    metrics = (*ENTITY_METRICS, *CLASS_METRICS)
    primary = ENTITY_METRICS[0].name
    columns: Mapping[str, ColumnKind] = MappingProxyType({"words": "words", _TAGS: "tags"})

    def __init__(self, *, entities: bool = True) -> None:
        self.entities = entities
        self.rule: EntityRule | None = None
        if not entities:
            self.metrics, self.primary = CLASS_METRICS, PRIMARY

    def bind(self, info: DataInfo) -> None:
        """Receive the tags, where they mark entities.

        Raises:
            UserError: for tags that mark none, and data that does not name them.
        """
        if not self.entities:
            return
        labels = json.loads(info.artifacts.get(_LABELS, "{}"))
        tags = labels.get(_TAGS) if isinstance(labels, dict) else None
        if tags is None:
            raise UserError(
                f"task.entities=true needs the name of each tag, and this data has no artifact {_LABELS} with "
                f'{{"{_TAGS}": […]}}: give it, or set task.entities=false'
            )
        self.rule = EntityRule(tags)

    def target_size(self, info: DataInfo) -> int:
        """The number of tags in train."""
        if info.num_classes is None:
            raise UserError("task=tagging needs classes, and this data has none (DataInfo.num_classes)")
        return info.num_classes

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`tokens`, int64 [B, T]: a word each; `mask`, bool [B, T]; and a class for each word [B, T]."""
        tokens, mask = padded([example["words"] for example in examples])
        target, _ = padded([example[_TAGS] for example in examples])
        return Batch({"tokens": tokens, "mask": mask}, target, mask.float(), {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and flatten: B sentences of T words become N = B · T rows, whose extra `sentence` says which
        of them stand together."""
        hidden = flat_hidden(backbone(batch.inputs), batch.weight, backbone)
        sentence = torch.arange(len(batch.weight), device=hidden.device)[:, None].expand_as(batch.weight)
        extras = {name: value.flatten() for name, value in {**batch.extras, "sentence": sentence}.items()}
        return Features(hidden, batch.target.flatten(), batch.weight.flatten(), extras)

    def calibrator(self, info: DataInfo) -> Temperature:
        return Temperature()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> Meter:
        words = ClassMeter(info, split, calibration["scale"], thorough=thorough)
        return words if self.rule is None else TagMeter(words, self.rule)
