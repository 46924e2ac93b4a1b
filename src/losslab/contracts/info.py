"""Sizes and artifacts of a data set, known once it is prepared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LABELS_FILE = "labels.json"
"""The artifact that holds the names of each column's classes."""


class SplitInfo(NamedTuple):
    """The size of a split."""

    positions: int
    """Positions that an evaluation scores; those that it reads, where the task draws some of them (`Task.masks`)."""
    units: int = 0
    """Parts of it that are scored apart, for intervals over what else could have been tested; 0: none."""
    unit: str = "sample"
    """Their name: sample, document, window."""
    words: int | None = None
    """Words of the original text, for figures per byte and word; None where there are none, or some are lost."""
    samples: int | None = None
    """Samples that a pass over train visits, which give trainer.max_epochs and shares of a pass their length;
    None: passes have none."""


@dataclass(frozen=True, kw_only=True)
class SplitContent:
    """The samples of a split, for `losslab data inspect`. None: not known, or there is no such thing."""

    unit: str = "sample"
    """The name of one of them: sample, row, document."""
    count: int
    """N."""
    read: int
    """How many of them the arrays below describe, from the first on."""
    lengths: NDArray[np.int64] | None = None
    """[read]: inputs of each sample, such as tokens."""
    cut: int | None = None
    """Samples that were longer than the context."""
    keys: NDArray[np.uint64] | None = None
    """[read]: a hash of each sample's inputs, by which equal ones are found."""
    classes: NDArray[np.int64] | None = None
    """Targets that are classes, of all samples one after the other."""
    owners: NDArray[np.int64] | None = None
    """The number of the sample that each of `classes` belongs to; None: one a sample."""
    values: NDArray[np.float64] | None = None
    """[read, K]: targets that are values, in their unit."""
    coverage: dict[str, float] = field(default_factory=dict)
    """Name → number: tokens per word, share of unknown words."""


class Passage(NamedTuple):
    """A question's text to search and its answers, for metrics of texts."""

    text: str
    answers: Sequence[str]
    """Those that people gave; none where the text does not answer the question."""


class ValueStats(NamedTuple):
    """Statistics of train's values, each [K], in the unit of the data."""

    mean: Sequence[float]
    std: Sequence[float]
    """Standard deviations of the population: squares divided by N."""
    min: Sequence[float]
    max: Sequence[float]


@dataclass(frozen=True)
class Vocabulary:
    """Facts of a tokenizer that a task needs to draw tokens."""

    size: int
    """V."""
    end: int | None
    """The id that ends a document."""
    mask: int | None
    """The id of the mask token."""
    begins_word: Callable[[Tensor], Tensor]
    """int64 [T] → bool [T]: whether a word begins at each token; the first always begins one."""


@dataclass(frozen=True)
class DataInfo:
    """Facts of a data set, known once it is prepared."""

    splits: dict[str, SplitInfo]
    mean_positions: float
    """Positions of a training sample, on average."""
    mean_share: float = 1.0
    """The share of the context that a training sample fills, on average: its passes cost that share of
    `Backbone.flops_per_sample()`."""
    vocab_size: int | None = None
    """V, where inputs are tokens."""
    source_vocab_size: int | None = None
    """The size of the source's vocabulary, where it is not that of `tokens`."""
    frame_width: int | None = None
    """F, where inputs are vectors (`frames`)."""
    mask: int | None = None
    """The id of the mask token, where the task or the data's augmentation needs one. It is never a target."""
    num_classes: int | None = None
    """C, where targets are classes of their own; None where they are tokens, or no classes."""
    class_names: tuple[str, ...] | None = None
    """[C]: what the data calls each of them; None where it names none."""
    num_values: int | None = None
    """K, where targets are values."""
    value_stats: ValueStats | None = None
    """Statistics of each of the K values in train."""
    class_counts: Tensor | None = None
    """float64 [C]: how often each class is a target in train."""
    references: int = 1
    """Right texts of each sample of test, its target among them, by which a written one is judged (`DataModule.texts`);
    −1: samples differ in it."""
    passages: Callable[[int], Passage] | None = None
    """The number of a question, over all splits (the extra `question` of batches) → its text and answers; None where
    samples are no questions."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """File name → content that the data's numbers need to mean anything: tokenizer.json, labels.json. They go into
    checkpoints and exports, and a run that reads another run's weights compares them."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes, in their order; None where targets have no names, or several columns have some."""
        columns = json.loads(self.artifacts.get(LABELS_FILE, "{}"))
        return tuple(next(iter(columns.values()))) if len(columns) == 1 else None

    def stored(self) -> dict[str, Any]:
        """Plain values that a checkpoint keeps, so that its network can be built without the data."""
        found = {name: getattr(self, name) for name in _STORED}
        if self.mean_share != 1:
            found[_SHARE] = self.mean_share
        if self.frame_width is not None:
            found[_FRAMES] = self.frame_width
        if self.source_vocab_size is not None:
            found[_SOURCE] = self.source_vocab_size
        if self.mask is not None:
            found[_MASK] = self.mask
        if self.references != 1:
            found[_REFERENCES] = self.references
        if self.value_stats is not None:
            found[_STATS] = {name: list(each) for name, each in self.value_stats._asdict().items()}
        return found

    @classmethod
    def restored(cls, content: dict[str, Any]) -> DataInfo:
        """The part of a DataInfo that `stored` gave.

        Raises:
            TypeError, KeyError: for another content.
        """
        stats = content.get(_STATS)
        return cls(
            splits={},
            mean_share=content.get(_SHARE, 1.0),
            frame_width=content.get(_FRAMES),
            mask=content.get(_MASK),
            references=content.get(_REFERENCES, 1),
            source_vocab_size=content.get(_SOURCE),
            value_stats=None if stats is None else ValueStats(**stats),
            **{name: content[name] for name in _STORED},
        )


_STATS = "value_stats"
_SHARE = "mean_share"
_FRAMES = "frame_width"
_MASK = "mask"
_REFERENCES = "references"
_SOURCE = "source_vocab_size"
_STORED = ("mean_positions", "vocab_size", "num_classes", "num_values", "artifacts")
