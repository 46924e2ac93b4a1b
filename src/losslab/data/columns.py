"""The kinds of columns (`losslab.contracts.ColumnKind`) and the vocabularies by which their cells become numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from losslab.contracts import DataInfo
from losslab.contracts.info import LABELS_FILE
from losslab.data.cells import Columns
from losslab.data.column import NUMBERS, Column, column_of
from losslab.data.frame_scale import FrameScale
from losslab.data.source_tokenizer import source_artifacts, source_tokenizer_of
from losslab.data.stored_rows import SplitRows
from losslab.data.table_format import Row
from losslab.data.text_columns import Tokens, encode_texts
from losslab.data.tokenizer import Tokenizer, artifacts_of, make_tokenizer, tokenizer_of
from losslab.errors import UserError

WORDS_FILE = "words.json"
"""Artifacts: column → its labels, where a label's place is its class; and words, whose first has the id 1."""
UNKNOWN = 0
"""The id of a word that train lacks."""
FRAMES_FILE = "frames.json"
"""The artifact that holds mean and standard deviation of a column of frames, by its name."""
CLASSES = ("label", "labels", "tags", "characters")
_NUMBERS = ("value", "values")
ONE = ("label", "value")
"""Kinds that give a row one number."""
_WORDS = ("words", "tags")
TOKENS = ("text", "words")
"""Kinds of columns that hold tokens of inputs."""
INPUTS = (*TOKENS, "frames")
"""Kinds of columns that hold a sequence of inputs."""


def target_of(columns: Columns) -> str | None:
    """The first column of labels, tags, characters or values."""
    return next((name for name, kind in columns.items() if kind in (*CLASSES, *_NUMBERS)), None)


@dataclass(frozen=True)
class Vocabularies:
    """All that turns cells into numbers, learned from train."""

    columns: Columns
    context: int
    joined: tuple[str, ...] = ()
    """Columns of text that become one sequence (`Task.joined`)."""
    tokenizer: Tokenizer | None = None
    source_tokenizer: Tokenizer | None = None
    """Reads the texts that are not `predicted`, where they have one of their own."""
    predicted: tuple[str, ...] = ()
    """`Task.predicted`."""
    words: dict[str, int] = field(default_factory=dict)
    """Word → id, from 1."""
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    """Column → label → class."""
    widths: dict[str, int] = field(default_factory=dict)
    """Column of values → how many there are in a row."""
    cut: str = "longest"
    """`Task.cut`."""
    scales: dict[str, FrameScale] = field(default_factory=dict)
    """Column of frames → its statistics."""

    @property
    def vocab_size(self) -> int | None:
        if self.tokenizer is not None:
            return self.tokenizer.vocab_size
        return len(self.words) + 1 if "words" in self.columns.values() else None

    def tokenizers(self) -> dict[str, Tokenizer]:
        """Column of text → its tokenizer."""
        found = {}
        for name in (name for name, kind in self.columns.items() if kind == "text"):
            own = self.tokenizer if name in self.predicted else self.source_tokenizer or self.tokenizer
            assert own is not None
            found[name] = own
        return found

    def artifacts(self) -> dict[str, str]:
        """File name → content of each."""
        found = {} if self.tokenizer is None else artifacts_of(self.tokenizer)
        if self.source_tokenizer is not None:
            found |= source_artifacts(self.source_tokenizer)
        if "words" in self.columns.values():
            found[WORDS_FILE] = json.dumps(list(self.words), ensure_ascii=False)
        if self.labels:
            found[LABELS_FILE] = json.dumps({name: list(labels) for name, labels in self.labels.items()}, indent=1)
        if self.scales:
            found[FRAMES_FILE] = json.dumps({name: scale.stored() for name, scale in self.scales.items()})
        return found

    @property
    def frame_width(self) -> int | None:
        """F, where inputs are frames."""
        return next((scale.width for scale in self.scales.values()), None)

    def encode(self, rows: Sequence[Row], *, whole: bool = False) -> tuple[dict[str, Column], int]:
        """Each column by name, and how many sequences are longer than the context.

        Args:
            whole: they keep what is beyond it; otherwise they are cut.

        Raises:
            UserError: for labels that train lacks, values of different lengths, text without a token, and frames of
                another F than train's, or more than the context has.
        """
        texts: dict[str, Tokens] = {}
        longer = 0
        own = self.tokenizers()
        for tokenizer in {id(each): each for each in own.values()}.values():
            names = [name for name, its in own.items() if its is tokenizer]
            joined = [name for name in self.joined if name in names]
            encoded, count = encode_texts(names, joined, rows, tokenizer, self.context, self.cut, whole=whole)
            texts, longer = texts | encoded, longer + count
        columns = {}
        for name, kind in self.columns.items():
            cells = [row[name] for row in rows]
            if kind in CLASSES:
                self._check_labels(name, cells)
            if kind == "text":
                columns[name] = Column(kind, texts[name].values, np.cumsum(texts[name].counts))
            elif kind == "frames":
                columns[name] = self._frames(name, cells)
            elif kind in ONE:
                numbers = cells if kind == "value" else [self.labels[name][cell] for cell in cells]
                columns[name] = Column(kind, np.array(numbers, dtype=NUMBERS[kind]), None)
            else:
                found = self._numbers(name, cells)
                if kind in _WORDS:
                    longer += kind == "words" and sum(len(numbers) > self.context for numbers in found)
                    found = found if whole else [numbers[: self.context] for numbers in found]
                columns[name] = column_of(kind, found)
        return columns, longer

    def _numbers(self, name: str, cells: list[Any]) -> list[list[Any]]:
        kind = self.columns[name]
        if kind == "words":
            return [[self.words.get(word, UNKNOWN) for word in words] for words in cells]
        if kind in CLASSES:
            return [[self.labels[name][label] for label in labels] for labels in cells]
        if other := {len(numbers) for numbers in cells} - {self.widths[name]}:
            raise UserError(f"{name} has {self.widths[name]} values in one row and {min(other)} in another")
        return list(cells)

    def _frames(self, name: str, cells: Sequence[tuple[int, bytes]]) -> Column:
        scale = self.scales[name]
        found = [scale.applied(name, cell) for cell in cells]
        if (longest := max(map(len, found))) > self.context:
            raise UserError(
                f"{name} has {longest:,} frames in a row, more than data.context={self.context}, and frames are not "
                f"cut off: give model.context={longest} or more"
            )
        ends = np.cumsum([frames.size for frames in found], dtype=np.int64)
        return Column("frames", np.concatenate(found).reshape(-1), ends, scale.width)

    def _check_labels(self, name: str, cells: list[Any]) -> None:
        found = set(cells) if self.columns[name] == "label" else {label for labels in cells for label in labels}
        if strangers := sorted(found - self.labels[name].keys()):
            shown = ", ".join(map(repr, strangers[:4])) + (", …" if len(strangers) > 4 else "")
            raise UserError(f"train has no row whose {name} is {shown}: no class stands for it")


def restored(
    columns: Columns, context: int, info: DataInfo, joined: Sequence[str] = (), predicted: Sequence[str] = ()
) -> Vocabularies:
    """The vocabularies that a checkpoint or an export holds. Raises UserError where an artifact is missing."""
    try:
        words = json.loads(info.artifacts[WORDS_FILE]) if "words" in columns.values() else []
        needs_labels = any(kind in CLASSES for kind in columns.values())
        labels = json.loads(info.artifacts[LABELS_FILE]) if needs_labels else {}
        scales = json.loads(info.artifacts[FRAMES_FILE]) if "frames" in columns.values() else {}
    except KeyError as error:
        raise UserError(f"the data of this run left no {error.args[0]}: it made its rows in a way of its own") from None
    has_texts = "text" in columns.values()
    return Vocabularies(
        columns,
        context,
        tuple(joined),
        tokenizer=tokenizer_of(info.artifacts) if has_texts else None,
        source_tokenizer=source_tokenizer_of(info.artifacts) if info.source_vocab_size is not None else None,
        predicted=tuple(predicted),
        words={word: i for i, word in enumerate(words, start=1)},
        labels={name: {label: i for i, label in enumerate(own)} for name, own in labels.items()},
        widths={name: info.num_values or 1 for name, kind in columns.items() if kind == "values"},
        scales={name: FrameScale.restored(own) for name, own in scales.items()},
    )


def learn(
    columns: Columns,
    train: SplitRows,
    *,
    context: int,
    joined: Sequence[str],
    tokenizer: str,
    vocab_size: int,
    lowercase: bool = False,
    masks: bool = False,
    begins: bool = False,
    predicted: Sequence[str] = (),
    joint: bool = True,
) -> Vocabularies:
    """The vocabularies of train.

    Args:
        joined: columns of text that become one sequence.
        tokenizer: bpe, bytes, or the path of a tokenizer.json, for columns of text.
        vocab_size: of a trained bpe; and the most words, the most frequent ones, that have an id beside 0.
        lowercase: of a trained bpe.
        masks: the tokenizer has a mask token.
        begins: texts begin with the token that its post-processor puts there.
        predicted: columns of text that are the target.
        joint: they and the other texts have one tokenizer.

    Raises:
        UserError: for a column with fewer than two labels, and a tokenizer without an end for texts to predict.
    """
    texts = [name for name, kind in columns.items() if kind == "text"]
    asked = {"lowercase": lowercase, "masks": masks, "begins": begins}
    sources = [] if joint else [name for name in texts if name not in predicted]

    def make(names: Sequence[str]) -> Tokenizer | None:
        if not names:
            return None
        return make_tokenizer(tokenizer, vocab_size, train.texts(names), **asked)

    made = make([name for name in texts if name not in sources])
    if predicted and made is not None and made.end is None:
        raise UserError(
            f"data.tokenizer={tokenizer} has no token for the end of a text (</s>, <|endoftext|>, …), and a text that "
            "is predicted begins and ends with it: give it one"
        )
    counts = Counter(word for name, kind in columns.items() if kind == "words" for row in train for word in row[name])
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - 1]
    labels = {}
    for name, kind in columns.items():
        if kind in CLASSES:
            there = {row[name] for row in train} if kind == "label" else {x for row in train for x in row[name]}
            if len(there) < 2:
                raise UserError(f"every row of train has the same {name}: there is nothing to tell apart")
            labels[name] = {label: i for i, label in enumerate(_sorted(there))}
    widths = {name: len(next(iter(train))[name]) for name, kind in columns.items() if kind == "values"}
    ids = {word: i for i, word in enumerate(frequent, start=1)}
    scales = {
        name: FrameScale.of(name, (row[name] for row in train)) for name, kind in columns.items() if kind == "frames"
    }
    return Vocabularies(
        columns,
        context,
        tuple(joined),
        tokenizer=made,
        source_tokenizer=make(sources),
        predicted=tuple(predicted),
        words=ids,
        labels=labels,
        widths=widths,
        scales=scales,
    )


def _sorted(labels: set[str]) -> list[str]:
    """Sort by name; whole numbers by their size, so that 10 does not come before 2."""
    try:
        return sorted(labels, key=lambda label: (int(label), label))
    except ValueError:
        return sorted(labels)


def class_names(columns: Columns, artifacts: Mapping[str, str]) -> tuple[str, ...] | None:
    """The labels of the target, in the order of their classes; None where it has none."""
    labels = json.loads(artifacts.get(LABELS_FILE, "{}"))
    names = labels.get(target_of(columns))
    return None if names is None else tuple(names)
