"""The values that pass between data, task, model and loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

MIXED_TARGET, MIXED_WEIGHT = "mixed_target", "mixed_weight"
"""Extras of mixed samples (`losslab.data.mixup`): the other sample's target, and 1 − λ of its weight."""
MIXED_TOKENS, MIXED_SHARES = "mixed_tokens", "mixed_shares"
"""Inputs of mixed samples: int64 [B, T], the other sample's tokens, and float [B, T, 2], what the embedding of each
side counts: λ and 1 − λ, and 0 in the padding. The framework mixes them in the model's nn.Embedding of V rows."""

OF_SOURCE = frozenset({"source", "source_mask"})
"""Inputs with positions of their own, [B, S]: a text that is read whole before a target is predicted, and where it is
no padding. They stand at no position of the target, however long both are."""


class TargetKind(Enum):
    """The form of `Features.target` that a loss expects."""

    CLASSES = "classes"  # int64 [N]
    DISTRIBUTIONS = "distributions"  # float [N, V], each row sums to 1
    LABELS = "labels"  # float [N, V], each in [0, 1]: classes that do not exclude one another
    VALUES = "values"  # float [N, K]
    SEQUENCES = "sequences"  # int64 [S, U], classes in their order, −1 behind the last of each; see `Features.lengths`


class EvalWindows(NamedTuple):
    """Windows in which the model reads what is longer than they are, so that no position is left out."""

    size: int
    """Positions of a window."""
    stride: int
    """Positions from the beginning of a window to that of the next, from 1 to `size`."""
    at_once: int
    """The most windows that the model reads in one call."""

    def starts(self, length: int) -> list[int]:
        """Where the windows of a sequence begin, every `stride` positions; the last one ends where the sequence does.
        A sequence that fits into one window has that alone."""
        return [*range(0, length - self.size, self.stride), max(0, length - self.size)]

    def number(self, length: int) -> int:
        """How many windows a sequence has."""
        return 1 + max(0, -(-(length - self.size) // self.stride))


class Batch(NamedTuple):
    """One micro-batch of B samples. P stands for the shape of their positions: [B, T] for a sequence, [B] for one each.

    A tuple, so that DataLoader and Lightning move it between processes and devices without help. Of its tensors a
    precision plugin casts `inputs` alone: bfloat16 would turn a target of 257.0 into 256.0.
    """

    inputs: dict[str, Tensor]
    """Inputs of the model, by name: `tokens` (int64 [B, T]), `mask`, `frames`, …"""
    target: Tensor
    """Targets as the task says: int64 P for classes, float P + [K] for values; int64 P + [K] for several classes a
    position, or a sequence of classes, filled up with −1."""
    weight: Tensor
    """float32 P: 0 = ignored (padding)."""
    extras: dict[str, Tensor]
    """Tensors aligned with `weight`: `fit` (1 in the half of val that fits the temperature), `bytes` (raw UTF-8 bytes
    of the target), `unit` (the document or sample whose scores it joins), `id` (the sample)."""
    windows: EvalWindows | None = None
    """How sequences that are longer than the context are read, in batches to evaluate or predict; None: there are
    none. The task sees one hidden state a position all the same (`losslab.training.long_inputs`)."""
    nonzero: Tensor | None = None
    """`weight` itself, where it held no 0 before it went to the device, which then need not be asked."""


class Windows(NamedTuple):
    """B windows of a stream of tokens, which a task makes a batch of."""

    tokens: Tensor
    """int64 [B, T + 1]."""
    weight: Tensor
    """float32 [B, T], of the tokens after the first: 0 beyond the end of the stream, and where another window scores
    them."""
    extras: dict[str, Tensor]
    """As those of a batch, aligned with `weight`."""
    documents: Tensor | None = None
    """int64 [B, T + 1]: the number of each token's document in its window, from 0; None: documents are not told apart.
    The token that ends a document belongs to it."""
    full: bool = False
    """No window reaches beyond the end of the stream, as in train."""


def next_tokens(windows: Windows) -> Batch:
    """Each token of a window but the last as input, and the token after it as target.

    Where documents are told apart, `segments` are those of the inputs, and the first token of a document is not
    predicted from the end of another: its weight is 0.
    """
    inputs, weight = {"tokens": windows.tokens[:, :-1]}, windows.weight
    if windows.documents is not None:
        inputs["segments"] = windows.documents[:, :-1]
        weight = weight * (windows.documents[:, 1:] == windows.documents[:, :-1])
    return Batch(inputs, windows.tokens[:, 1:], weight, windows.extras)


@dataclass(frozen=True)
class Features:
    """The part of a batch that a loss reads: N selected positions, flattened by the task.

    Where targets are sequences, S sequences stand one behind the other: the N hidden states are those of the first,
    then those of the second, …, as `lengths` says, and target, weight and extras have an entry for each sequence.
    """

    hidden: Tensor
    """[N, D]: hidden states; those of a task that points, before `Task.choices`, [N, T, D]."""
    target: Tensor
    """[N] classes, [N, V] distributions or labels, [N, K] values, or [S, U] sequences: see `TargetKind`. Of a task that
    points [N, K]."""
    weight: Tensor
    """float32 [N], of sequences [S]: 0 = ignored; padding, prompt masking and sample weights all end here."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Further tensors of N rows, aligned with `hidden`: those of the batch, what `Loss.needs` asks for (`previous`,
    int32 [N, K]: the tokens up to each position, the latest first, -1 where there are no more; `next`, int32 [N, K]:
    the targets of the positions after each, the nearest first, -1 where there is none), and `teacher_hidden`; and
    `class`, int64 [N], where the loss expects classes in another form."""
    lengths: Tensor | None = None
    """int64 [S]: how many of the hidden states belong to each sequence; None where targets are no sequences."""
    nonzero: Tensor | None = None
    """`weight` itself, where it is known to hold no 0; another tensor says nothing about it."""

    def __getitem__(self, rows: Tensor | slice) -> Features:
        return Features(
            hidden=self.hidden[self.places(rows)],
            target=self.target[rows],
            weight=self.weight[rows],
            extras={name: value[rows] for name, value in self.extras.items()},
            lengths=None if self.lengths is None else self.lengths[rows],
        )

    def __len__(self) -> int:
        """N, or S."""
        return len(self.target)

    def places(self, rows: Tensor | slice) -> Tensor | slice:
        """The rows of `hidden` that belong to these positions, or to these sequences, in their order."""
        if self.lengths is None:
            return rows
        ends = self.lengths.cumsum(0)
        lengths, begins = self.lengths[rows], (ends - self.lengths)[rows]
        before = lengths.cumsum(0) - lengths
        shifts = torch.repeat_interleave(begins - before, lengths)
        return torch.arange(len(shifts), device=shifts.device) + shifts

    def weighted(self, share: Tensor) -> Features:
        """Each position's weight multiplied by its share [N]."""
        return replace(self, weight=self.weight * share)

    def kept(self) -> Features:
        """The positions, or sequences, with non-zero weight; ignored ones are dropped before anything is projected.
        Waits for the device once, and not at all where the weights are known to hold no 0."""
        if self.nonzero is self.weight:
            return self
        places = self.weight.nonzero()[:, 0]
        found = self if len(places) == len(self.weight) else self[places]  # no copy of targets [N, V] for nothing
        return replace(found, nonzero=found.weight)

    def known(self, batch: Batch) -> Features:
        """The same features; where their weights are a view of those of a batch that holds no 0, this is noted."""
        known = batch.nonzero is batch.weight and (self.weight is batch.weight or self.weight._base is batch.weight)
        return replace(self, nonzero=self.weight) if known else self

    def chunks(self, size: int) -> list[Features]:
        """Consecutive pieces of at most `size` positions; a sequence that is longer is not cut, and a piece alone."""
        if self.lengths is None:
            return [self[i : i + size] for i in range(0, len(self), size)]
        found, start, taken = [], 0, 0
        for i, length in enumerate(self.lengths.tolist()):
            if i > start and taken + length > size:
                found.append(self[start:i])
                start, taken = i, 0
            taken += length
        return [*found, self[start:]] if len(self) else found


@dataclass(frozen=True)
class PenaltySum:
    """Penalties beside a loss that divides by weights of its own: they are means over positions all the same."""

    total: Tensor
    """Detached scalar: Σ weight · penalty."""
    weight: Tensor
    """Its denominator, Σ weight."""
    share: Tensor
    """The factor of the penalties in `LossSum.total`, so that its one denominator gives their mean: that denominator
    over this one, of a whole optimizer step where it is known."""


@dataclass(frozen=True)
class LossSum:
    """The result of a loss: sums, never a mean. `training/reduce.py` divides, once."""

    total: Tensor
    """float32 scalar: Σ weight · position loss."""
    weight: Tensor
    """float32 scalar: the denominator, Σ weight."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Detached scalar sums over the same denominator, for the logs."""
    penalty: PenaltySum | None = None
    """The penalties in `total`, where their denominator is another."""

    def plus(self, other: LossSum) -> LossSum:
        """The sums of both, of one loss over other positions of a step."""
        terms = {name: value + other.terms[name] for name, value in self.terms.items()}
        penalty, more = self.penalty, other.penalty
        if penalty is not None and more is not None:
            penalty = replace(penalty, total=penalty.total + more.total, weight=penalty.weight + more.weight)
        return LossSum(self.total + other.total, self.weight + other.weight, terms, penalty)


Values = Tensor | Mapping[str, Tensor]
"""The loss of each position [N]; or, of a loss that names its terms, each of them by name, whose sum it is."""


def added(values: Values) -> Tensor:
    """The loss of each position, its terms added up."""
    return values if isinstance(values, Tensor) else torch.stack(list(values.values())).sum(dim=0)


class Projection(Protocol):
    """Hidden states [N, D] → logits [N, V]; `weight` [V, D] and `bias` [V] or None can be read directly."""

    @property
    def weight(self) -> Tensor: ...

    @property
    def bias(self) -> Tensor | None: ...

    def __call__(self, hidden: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class OutputSpec:
    """Sizes that are known only once the data is, handed to `Loss.bind`."""

    num_outputs: int
    """The rows of the projection: V, vocabulary size or number of classes, unless the loss says otherwise."""
    hidden_size: int
    """D: width of the hidden states."""
    generator: torch.Generator
    """The head_init stream, for losses with parameters of their own."""
    class_counts: Tensor | None = None
    """float64 [V]: how often each class is a target in train; None where there are no classes."""
    size: int | None = None
    """Classes, or values a position, for which `Loss.num_outputs` gave `num_outputs`; None: as many."""
    labels: tuple[str, ...] | None = None
    """The names of the classes, where they have any."""
    value_range: tuple[float, float] | None = None
    """The least and the largest target of train, as `Features.target` has them; None where targets are no values."""

    @property
    def num_classes(self) -> int:
        """V where targets are classes, also where a loss needs another number of outputs for them."""
        return self.num_outputs if self.size is None else self.size
