"""Regression: one value, or several, for each text, or for each pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from losslab.contracts import Backbone, Batch, DataInfo, Features, TargetKind, Task
from losslab.errors import UserError
from losslab.metrics.value_meter import ValueMeter, value_metrics
from losslab.tasks.pairs import joined_columns, text_columns, text_inputs
from losslab.tasks.pooling import Pooling, pooled


class Regression(Task):
    """A text's hidden states are pooled and projected to values. The loss sees them in standard deviations of train
    from its mean; metrics and predictions are in the unit of the data.

    Args:
        pair: read two texts, the columns `text` and `text_pair`, as one sequence.
        target: value: a number a row; values: a list of numbers, as many in every row.
        pooling: first | mean | last: the hidden state that stands for a text.
        standardise: give the loss (y − mean) / std, with mean and standard deviation of train's values; false: y.
        unit: of the values, for tables and reports: cm.
    """

    accepts = frozenset({TargetKind.VALUES})
    metrics = value_metrics("")
    primary = "rmse"

    def __init__(
        self,
        *,
        pair: bool = False,
        target: Literal["value", "values"] = "value",
        pooling: Pooling = "mean",
        standardise: bool = True,
        unit: str = "",
    ) -> None:
        self.pair = pair
        self.target = target
        self.pooling = pooling
        self.standardise = standardise
        self.unit = unit
        self.metrics = value_metrics(unit)
        self.columns = {**text_columns(pair=pair), target: target}
        self.joined = joined_columns(pair=pair)
        self.mean, self.std = torch.zeros(1), torch.ones(1)

    def bind(self, info: DataInfo) -> None:
        """Receive mean and standard deviation of train's values.

        Raises:
            UserError: for values that are all the same, and data that gives no statistics.
        """
        count = self.target_size(info)
        stats = info.value_stats
        self.mean, self.std = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
        if not self.standardise:
            return
        if stats is None:
            raise UserError(
                "task.standardise=true needs mean and standard deviation of train's values, which this data does not "
                "give (DataInfo.value_stats): give them there, or set task.standardise=false"
            )
        constant = [i for i, (low, high) in enumerate(zip(stats.min, stats.max, strict=True)) if low == high]
        if constant:
            which = f"number {constant[0] + 1} of its {self.target}" if count > 1 else self.target
            raise UserError(f"every row of train has the same {which}: there is nothing to learn")
        self.mean, self.std = (torch.tensor(each, dtype=torch.float64) for each in (stats.mean, stats.std))

    def target_size(self, info: DataInfo) -> int:
        """K, the number of values in a row."""
        if info.num_values is None:
            raise UserError("task=regression needs values, and this data has none (DataInfo.num_values)")
        return info.num_values

    def value_range(self, info: DataInfo) -> tuple[float, float] | None:
        stats = info.value_stats
        if stats is None:
            return None
        ends = torch.tensor([stats.min, stats.max], dtype=torch.float64)
        low, high = (ends - self.mean) / self.std
        return float(low.min()), float(high.max())

    def in_units(self, values: Tensor) -> Tensor:
        return values.double() * self.std.to(values.device) + self.mean.to(values.device)

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """`tokens` and `mask`, of pairs `types`, too (`text_inputs`), and values in their unit, float64 [B, K]."""
        target = torch.stack([torch.as_tensor(example[self.target], dtype=torch.float64) for example in examples])
        target, weight = target.reshape(len(examples), -1), torch.ones(len(examples))
        return Batch(text_inputs(examples, pair=self.pair), target, weight, {})

    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and pool: a row for each of B texts. The extra `value` keeps the targets in their unit."""
        hidden = pooled(backbone(batch.inputs), batch.inputs, self.pooling, weight=batch.weight, backbone=backbone)
        target, weight = self.flat_targets(batch)
        extras = {name: value.flatten() for name, value in batch.extras.items()}
        return Features(hidden, target, weight, extras | {"value": batch.target.flatten(0, -2).double()})

    def flat_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Targets as the loss sees them, float32 [N, K], and weights [N]."""
        target = batch.target.flatten(0, -2).double()
        target = (target - self.mean.to(target.device)) / self.std.to(target.device)
        return target.float(), batch.weight.flatten()

    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> ValueMeter:
        units = info.splits[split].units if thorough and split == "test" else 0
        return ValueMeter(mean=self.mean, std=self.std, num_units=units)
