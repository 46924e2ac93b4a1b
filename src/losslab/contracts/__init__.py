"""The values that pass between data, task, model and loss, and what each of these must do. Torch and Lightning only."""

from losslab.contracts.data import DataModule, Share, Subset, raw_bytes, to_device
from losslab.contracts.info import DataInfo, SplitInfo
from losslab.contracts.model import Backbone, Teacher, blocks_of, cache_of, context_of, flops_of, projection_of
from losslab.contracts.task import Calibrator, ColumnKind, Meter, Scored, Task, flat_hidden, no_objective
from losslab.contracts.values import (
    Batch,
    Features,
    LossSum,
    OutputSpec,
    PenaltySum,
    Projection,
    TargetKind,
    Values,
    added,
    padded,
)
from losslab.metric import Metric

__all__ = [
    "Backbone",
    "Batch",
    "Calibrator",
    "ColumnKind",
    "DataInfo",
    "DataModule",
    "Features",
    "LossSum",
    "Meter",
    "Metric",
    "OutputSpec",
    "PenaltySum",
    "Projection",
    "Scored",
    "Share",
    "SplitInfo",
    "Subset",
    "TargetKind",
    "Task",
    "Teacher",
    "Values",
    "added",
    "blocks_of",
    "cache_of",
    "context_of",
    "flat_hidden",
    "flops_of",
    "no_objective",
    "padded",
    "projection_of",
    "raw_bytes",
    "to_device",
]
