"""The meter of tasks that give each word a tag: metrics of classes, and of the entities that the tags mark."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import Features, LossSum, Meter, Projection
from losslab.contracts.task import Combined
from losslab.metrics.class_meter import ClassMeter
from losslab.metrics.class_metrics import classes_of
from losslab.metrics.entities import EntityRule, scores
from losslab.metrics.scorer import Scorer

_ENTITIES = "entities"


class TagMeter(Meter):
    """A `ClassMeter`, with counts of entities by type.

    Args:
        words: of the words' classes.
        rule: finds entities.
    """

    def __init__(self, words: ClassMeter, rule: EntityRule) -> None:
        self.words = words
        self.rule = rule
        self.counts = torch.zeros(3, len(rule.types), dtype=torch.float64)

    @torch.no_grad()
    def update(self, features: Features, loss: Scorer, projection: Projection) -> LossSum:
        """Add N words; the extra `sentence`, int [N], says which stand together."""
        features = features.kept()
        with torch.autocast(device_type=features.hidden.device.type, enabled=False):
            predicted = loss.predict_log_probs(loss.scores(features.hidden, projection)).argmax(dim=-1)
        found = self.rule.count_by_type(predicted, classes_of(features), features.extras["sentence"])
        self.counts = self.counts + found.to(self.counts.device)
        return self.words.update(features, loss, projection)

    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        return {**self.words.states(), _ENTITIES: (self.counts, "sum")}

    def combine(self, states: dict[str, Tensor]) -> None:
        self.counts = states[_ENTITIES]
        self.words.combine({name: state for name, state in states.items() if name != _ENTITIES})

    def values(self) -> dict[str, float]:
        return {**scores(*self.counts.sum(dim=1).tolist()), **self.words.values()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Those of the words; `entities` [3, K]: of each type the entities that are right, those predicted, and those
        there are; `entity_types` [K]."""
        found = {"entities": self.counts.cpu().numpy(), "entity_types": np.array(self.rule.types, dtype=np.str_)}
        return self.words.arrays() | found
