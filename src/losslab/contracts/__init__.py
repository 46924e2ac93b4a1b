"""The values that pass between data, task, model and loss, and what each of these must do. Torch and Lightning only.

The contract of data modules alone needs Lightning, whose import takes seconds: its names are imported when they are
first asked for, so that `losslab.functional` imports torch alone.
"""

from typing import TYPE_CHECKING, Any

from losslab.contracts.info import DataInfo, Passage, SplitContent, SplitInfo, ValueStats, Vocabulary
from losslab.contracts.model import (
    Backbone,
    Teacher,
    blocks_of,
    cache_of,
    context_of,
    flops_of,
    is_constant,
    mixes_samples,
    projection_of,
    reads_ahead,
    reads_back_alone,
    reads_source,
)
from losslab.contracts.sequences import following_targets, padded, previous_tokens
from losslab.contracts.task import Calibrator, ColumnKind, Generation, Meter, Scored, Task, flat_hidden, no_objective
from losslab.contracts.values import (
    MIXED_SHARES,
    MIXED_TARGET,
    MIXED_TOKENS,
    MIXED_WEIGHT,
    OF_SOURCE,
    Batch,
    EvalWindows,
    Features,
    LossSum,
    OutputSpec,
    PenaltySum,
    Projection,
    TargetKind,
    Values,
    Windows,
    added,
    next_tokens,
)
from losslab.metric import Metric

if TYPE_CHECKING:
    from losslab.contracts.data import DataModule, Share, Subset, raw_bytes, to_device

_OF_DATA = ("DataModule", "Share", "Subset", "raw_bytes", "to_device")

__all__ = [
    "MIXED_SHARES",
    "MIXED_TARGET",
    "MIXED_TOKENS",
    "MIXED_WEIGHT",
    "OF_SOURCE",
    "Backbone",
    "Batch",
    "Calibrator",
    "ColumnKind",
    "DataInfo",
    "DataModule",
    "EvalWindows",
    "Features",
    "Generation",
    "LossSum",
    "Meter",
    "Metric",
    "OutputSpec",
    "Passage",
    "PenaltySum",
    "Projection",
    "Scored",
    "Share",
    "SplitContent",
    "SplitInfo",
    "Subset",
    "TargetKind",
    "Task",
    "Teacher",
    "ValueStats",
    "Values",
    "Vocabulary",
    "Windows",
    "added",
    "blocks_of",
    "cache_of",
    "context_of",
    "flat_hidden",
    "flops_of",
    "following_targets",
    "is_constant",
    "mixes_samples",
    "next_tokens",
    "no_objective",
    "padded",
    "previous_tokens",
    "projection_of",
    "raw_bytes",
    "reads_ahead",
    "reads_back_alone",
    "reads_source",
    "to_device",
]


def __getattr__(name: str) -> Any:
    if name not in _OF_DATA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from losslab.contracts import data

    globals().update({each: getattr(data, each) for each in _OF_DATA})
    return globals()[name]
