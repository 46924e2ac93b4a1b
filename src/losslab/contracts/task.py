"""The contract of a task: what is predicted where, from which targets, and by which metrics it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts.info import DataInfo, Vocabulary
from losslab.contracts.model import Backbone
from losslab.contracts.values import Batch, Features, LossSum, Projection, TargetKind, Windows, next_tokens
from losslab.metric import Metric

Combined = Literal["sum", "max", "min", "cat"]
"""The way in which the ranks' parts of a state become the whole; `cat`: rows one after the other, in the order of
ranks."""

ColumnKind = Literal["text", "words", "label", "labels", "tags", "value", "values", "frames", "characters"]
"""Types of columns, for data that has rows, and the value that a row then holds:

    text      a string                       int64 [T]: token ids, at most data.context, the end of text included; of
                                             val and test all of them, where data.eval_stride reads them in windows
    words     a list of strings              int64 [T]: an id for each word, 0 for those that train lacks
    label     a string or whole number       int: its class
    labels    a list of them                 int64 [K]: the classes that hold, which do not exclude one another
    tags      a list of them, as many as     int64 [T]: a class for each word
              there are words
    value     a number                       float
    values    a list of numbers              float64 [K]: as many in every row
    frames    an array [T, F], which a       float32 [T, F]: T at most data.context, F the same in every row; less
              source reads (`data=frames`)   train's mean and divided by its standard deviation, each of F
    characters  a string                     int64 [U]: a class for each character, white space being one space

Where a file cannot hold lists (csv), their items stand between white space.
"""


class Generation(NamedTuple):
    """How a task's outputs are written, by `losslab.training.generation.search`."""

    beams: int = 1
    """Hypotheses that are kept at each step; 1: greedy."""
    length_penalty: float = 1.0
    """α: a hypothesis of n tokens scores log p / n^α."""


class Scored(ABC):
    """Something that looks at each batch of an evaluation."""

    @abstractmethod
    def update(self, features: Features, loss: Any, projection: Projection) -> LossSum:
        """Take in N positions. `loss.scores(features.hidden, projection)` are the outputs [N, V].

        Returns:
            The objective's sums, or zeros.
        """


class Calibrator(Scored):
    """Fits, on one half of val, numbers by which every loss's predictions are made comparable."""

    names: ClassVar[tuple[str, ...]]
    """Names of the numbers that `finish` returns; recorded as `val/NAME`."""

    @abstractmethod
    def finish(self, loss: Any, projection: Projection) -> dict[str, float]:
        """The fitted numbers by name. Called once, after the last `update`, on every rank alike."""


class Meter(Scored):
    """The metrics of one split, as sums over its positions."""

    @abstractmethod
    def states(self) -> dict[str, tuple[Tensor, Combined]]:
        """Tensors that ranks combine, by name."""

    def combine(self, states: dict[str, Tensor]) -> None:
        """Receive the combined states. Default: the attributes of these names."""
        for name, value in states.items():
            setattr(self, name, value)

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Each metric by its declared name."""

    def judge(self, written: Sequence[str], references: Sequence[Sequence[str]], units: Sequence[int]) -> None:
        """Take in B texts that the network wrote, with the references and the unit (`unit` of the batch's extras) of
        each. Called after the last `update`, where the meter is thorough and its task writes texts (`Task.generation`).
        Default: nothing is judged."""

    def to(self, device: torch.device) -> None:
        """Keep the states on a device."""
        self.combine({name: value.to(device) for name, (value, _) in self.states().items()})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays for the comparison, kept beside the record: `units` [1 + M, U], of each unit of test its weight and
        the sums of M metrics; `unit_metrics` [M], their names; and others, see `RunFolder.scores`. Default: nothing."""
        return {}


class Task(ABC):
    """The way from batches to the features of a loss, and from predictions to metrics."""

    accepts: ClassVar[frozenset[TargetKind]]
    """The kinds of targets that it can give a loss."""
    metrics: tuple[Metric, ...]
    """All that its meter returns. Of the class, or set by the constructor."""
    primary: str
    """The metric that chooses the best checkpoint, and that a comparison is about."""
    provides: ClassVar[frozenset[str]] = frozenset()
    """Names of extras that it can add where `Loss.needs` asks for them."""
    causal: ClassVar[bool] = False
    """No hidden state may depend on inputs after its position, for the targets stand there."""
    reads_source: ClassVar[bool] = False
    """Each sample has a source (`OF_SOURCE`) beside its `tokens`: a model that does not read it is refused."""
    of_stream: ClassVar[bool] = False
    """It reads windows of a stream of tokens, as `data=text` gives them."""
    predicts_tokens: ClassVar[bool] = False
    """Its classes are the tokens of the vocabulary, so that the output projection of a pretrained model fits."""
    masks: ClassVar[bool] = False
    """It hides tokens behind a mask token: the tokenizer then has one (`DataInfo.mask`)."""
    points: ClassVar[bool] = False
    """Its classes are places of a sample, such as the tokens of a text, of which each sample has a number of its own.
    `features` then gives hidden states of all places, [N, T, D], and int64 targets [N, K], the places of K things that
    are looked for; `target_size` is K, and `choices` makes what the loss reads. Losses that compare positions, or have
    something for each class (`Loss.per_class`), are refused, and so are models that read what stands before a position
    alone."""
    columns: Mapping[str, ColumnKind] = MappingProxyType({})
    """The columns that it reads of data that has rows (`data=csv`, `data=jsonl`), by its own name for each: what they
    are called in the file is the data's to say (`data.columns.text=question`). Checked before data is read. The first
    column of labels, tags, characters or values is the target: its classes are `DataInfo.num_classes` and
    `class_counts`, its values `DataInfo.num_values`. Empty: it reads no rows. Of the class, or set by the
    constructor."""
    predicted: Sequence[str] = ()
    """Those of its columns of text that are its target, and no input. A hash of the other columns decides about a row's
    split; rows of which one text is empty are left out; `data.augment` leaves these texts as they are; and where the
    data gives them a vocabulary of their own, `DataInfo.source_vocab_size` is that of the others."""
    joined: Sequence[str] = ()
    """Those of its columns of text that it makes one sequence of, such as a pair: the data cuts them so that together
    they fit into the context. Other texts are cut alone."""
    cut: Literal["longest", "left", "right"] = "longest"
    """How joined texts are cut. `longest`: the longest first, and each keeps its end of text. `left`, `right`: they are
    one running text, with an end of text before and after all of it, of which that side is cut off beyond context + 1
    tokens: the last is no input of a task that predicts what follows."""

    generation: Generation | None = None
    """How the texts are written that its thorough meters judge, and that `losslab translate` prints: `tokens` after the
    first one of each sample, up to the end of text. None: none are. Of the class, or set by the constructor."""
    unit: str = ""
    """Unit of the values that it predicts (cm), for people."""

    @property
    def continues_texts(self) -> bool:
        """Whether it predicts what follows a text, with nothing beside it: such runs generate."""
        return self.causal and not self.reads_source

    def bind(self, info: DataInfo) -> None:  # noqa: B027 (a hook that most tasks leave empty)
        """Receive the facts of the data, once they are known, before any other function. Default: needs none.

        Raises:
            UserError: for data that the task cannot be trained on.
        """

    def told(self) -> str | None:
        """One line for people: what is predicted, where that is not everything. Default: nothing."""
        return None

    @abstractmethod
    def target_size(self, info: DataInfo) -> int:
        """The number of classes, or of values a position; the loss turns it into a number of outputs."""

    @abstractmethod
    def features(self, backbone: Backbone, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
        """Run the backbone and select positions, flattened to N rows.

        Args:
            kind: the form of target that the loss expects, one of `accepts`. A task of classes may return int64 [N] for
                distributions and labels, too: the class then has all of the weight.
            needs: extras that it needs, by name, each one of `provides`.
        """

    def choices(self, features: Features, projection: Projection) -> Iterable[tuple[Features, Projection]]:
        """The arguments of each call of the loss, whose sums are added up. Default: all features at once, with the
        projection. A task that `points` gives those positions together that choose among equally many places
        (`losslab.metrics.places`)."""
        return ((features, projection),)

    @abstractmethod
    def meter(self, info: DataInfo, split: str, calibration: Mapping[str, float], *, thorough: bool) -> Meter:
        """A meter for one pass over a split.

        Args:
            calibration: what the calibrator fitted; empty without one.
            thorough: with the metrics that cost more, for the last and the best weights, and on test.
        """

    def calibrator(self, info: DataInfo) -> Calibrator | None:
        """A fresh calibrator, where predictions need one. Default: none."""
        return None

    def in_units(self, values: Tensor) -> Tensor:
        """Values [N, K] as `Features.target` has them → in the unit of the data. Default: they are."""
        return values

    def value_range(self, info: DataInfo) -> tuple[float, float] | None:
        """The least and the largest target of train, as `Features.target` has them; None where that is unknown.
        Default: of `DataInfo.value_stats`, in the unit of the data."""
        stats = info.value_stats
        return None if stats is None else (min(stats.min), max(stats.max))

    def flat_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Target [N] and weight [N] of a batch's positions, without a model, for `Loss.prepare_step`."""
        return batch.target.flatten(), batch.weight.flatten()

    def of_windows(self, windows: Windows) -> Batch:
        """A batch of windows of a stream, for a task that is `of_stream`. Default: the next token at every position."""
        return next_tokens(windows)

    def draw(self, batch: Batch, seeds: NDArray[np.uint64], vocabulary: Vocabulary) -> Batch:
        """Change what the model reads of a batch at random, for a task that `masks`. A pure function.

        Args:
            batch: of `of_windows` or `collate`.
            seeds: [B], one for each sample: of train a function of the run's seed and the sample's place in the order
                of batches, so that every loss gets the same; of other splits one of the sample alone.
        """
        return batch

    def example(self, row: Mapping[str, Any]) -> Any:
        """An example out of a row, as `collate` takes it. Default: the row.

        Args:
            row: each of `columns` by name, encoded as its kind says; no column that is not among them.
        """
        return row

    def source_inputs(self, sources: Sequence[Tensor]) -> dict[str, Tensor]:
        """Inputs for B sources alone, int64 [S_i] each, with their ends of text (`OF_SOURCE`), for a task that
        `reads_source`: `losslab translate` gives them to the model."""
        raise NotImplementedError(f"{type(self).__name__} reads no source: it has no source_inputs")

    def collate(self, examples: Sequence[Any]) -> Batch:
        """A batch of examples, for data that has rows. A pure function: what it returns for an example must not depend
        on the others, but for padding (`padded`).

        Args:
            examples: B of them, at least one, as `example` returned them.

        Returns:
            inputs by the names that the model reads (`tokens`, int64 [B, T]; `mask`, bool [B, T]: False in the
            padding), target, and weight: float32 [B] for one position a row, [B, T] for one a word. The data adds
            `fit`, `unit` and `id` to the extras.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no rows: it has no collate")


def no_objective(like: Tensor) -> LossSum:
    """Sums of zero, for an `update` that leaves the objective out."""
    zero = torch.zeros((), device=like.device)
    return LossSum(total=zero, weight=zero)


def flat_hidden(hidden: Tensor, weight: Tensor, backbone: Any) -> Tensor:
    """Hidden states P + [D] → [N, D], where P is the shape of the weights.

    Raises:
        UserError: where a backbone returned another shape.
    """
    from losslab.errors import UserError

    wanted = (*weight.shape, backbone.width)
    if tuple(hidden.shape) != wanted:
        raise UserError(
            f"model: {type(backbone).__name__} returned hidden states of shape {list(hidden.shape)}, and this batch "
            f"needs {list(wanted)}: positions as the data has them, and then width={backbone.width}"
        )
    return hidden.flatten(0, -2)
