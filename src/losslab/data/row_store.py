"""Encoded rows on disk, under a hash of everything that decides them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from losslab.contracts import ColumnKind, Task, ValueStats
from losslab.data.cells import Columns
from losslab.data.column import Column
from losslab.data.columns import INPUTS, learn, target_of
from losslab.data.row_reading import Reading, Rows
from losslab.data.row_source import RowSource
from losslab.data.row_writer import write_rows
from losslab.data.splits import SPLITS
from losslab.data.store import DAMAGED, key_of, map_array, open_or_build, read_meta, read_parts, write_meta

_FORMAT = 2


@dataclass(frozen=True)
class RowStore:
    """The rows of every split, memory-mapped."""

    meta: dict[str, Any]
    columns: dict[str, dict[str, Column]]
    """Split → name → column."""
    hashes: dict[str, NDArray[Any]]
    """Split → uint64 [N], of each row's inputs."""
    written: dict[str, dict[str, tuple[NDArray[Any], NDArray[Any]]]] = field(default_factory=dict)
    """Split → name of a column that is predicted → uint8, its texts in UTF-8, and where each ends."""

    def count(self, split: str) -> int:
        return len(self.hashes[split])

    def order(self, split: str) -> NDArray[np.int64]:
        """[N]: the rows of a split in an order of hashes of their inputs: that of the low bits, for the high ones have
        decided about the split."""
        return np.argsort(self.hashes[split].astype("<u8").byteswap(), kind="stable")

    def value_stats(self) -> ValueStats | None:
        """Statistics of the target's values in train; None where the target is no value."""
        target = target_of(self.meta["settings"]["kinds"])
        width: int | None = self.meta["num_values"]
        if target is None or width is None:
            return None
        values = self.columns["train"][target].values.reshape(-1, width).astype(np.float64)
        found = (values.mean(axis=0), values.std(axis=0), values.min(axis=0), values.max(axis=0))
        return ValueStats(*(each.tolist() for each in found))

    def lengths(self, split: str, kinds: Columns) -> NDArray[np.int64]:
        """[N]: tokens of each row of a split, over its columns; 0 where it has none."""
        none = np.zeros(self.count(split), dtype=np.int64)
        return np.asarray(sum((self.columns[split][name].lengths() for name in kinds if kinds[name] in INPUTS), none))

    def mean_share(self, task: Task, context: int) -> float:
        """The share of the context that the tokens of a row of train fill, on average over its sequences."""
        names = [name for name, kind in task.columns.items() if kind in INPUTS]
        sequences = len(set(names) - set(task.joined)) + bool(task.joined)
        return float(self.lengths("train", task.columns).mean()) / (sequences * context) if names else 1.0

    def texts(self, split: str, name: str) -> list[str]:
        """The texts of a column that is predicted (`Task.predicted`), of val or test, as they were written."""
        content, ends = self.written[split][name]
        pieces = np.split(content, ends[:-1])
        return [piece.tobytes().decode() for piece in pieces]

    def token_counts(self, name: str) -> NDArray[np.int64]:
        """[V]: how often each token is a target in train, of a column that is predicted."""
        column = self.columns["train"][name]
        assert column.ends is not None
        begins = np.concatenate([[0], column.ends[:-1]])  # where a target begins, with no token of its own
        counts = np.bincount(column.values, minlength=self.meta["vocab_size"])
        return np.asarray(counts - np.bincount(column.values[begins], minlength=len(counts)), dtype=np.int64)

    def row(self, split: str, number: int) -> dict[str, int | float | Tensor]:
        """Each column of a row by name, as `ColumnKind` says."""
        return {name: column[number] for name, column in self.columns[split].items()}


def open_rows(
    root: Path, settings: dict[str, Any], source: RowSource, reading: Reading, columns: Columns, tokenizer: str
) -> RowStore:
    """Open the folder for `settings`, or read and encode the rows.

    Args:
        settings: all that decides what is kept; `context` and `vocab_size`, and `joined`, `cut` and `whole`, where
            they are there, are read.

    Raises:
        UserError: for rows that cannot be used.
    """
    folder = root / key_of({**settings, "format": ["rows", _FORMAT]})

    def opened(folder: Path) -> RowStore:
        return _open(folder, columns)

    def write(folder: Path) -> None:
        rows = reading.read(source, columns, folder)
        _write(folder, settings, rows, columns, tokenizer, source.artifacts())

    try:
        return opened(folder)
    except DAMAGED:
        return open_or_build(folder, opened, write, resumes=True)


def _open(folder: Path, columns: Columns) -> RowStore:
    meta = read_meta(folder)

    def load(name: str) -> NDArray[Any]:
        return map_array(folder / f"{name}.npy")

    def column(name: str, kind: ColumnKind) -> Column:
        ends = load(f"{name}.ends") if f"{name}.ends.npy" in meta["checksums"] else None
        return Column(kind, load(name), ends, meta["frame_width"] if kind == "frames" else 1)

    found = {
        split: {name: column(f"{split}.{i}", kind) for i, (name, kind) in enumerate(columns.items())}
        for split in SPLITS
    }
    written = {
        split: {
            name: (load(f"{split}.{i}.texts"), load(f"{split}.{i}.texts.ends"))
            for i, name in enumerate(columns)
            if f"{split}.{i}.texts.npy" in meta["checksums"]
        }
        for split in SPLITS
    }
    return RowStore(meta, found, {split: load(f"{split}.hashes") for split in SPLITS}, written)


def _write_texts(path: Path, texts: list[str]) -> None:
    content = [text.encode() for text in texts]
    np.save(f"{path}.texts.npy", np.frombuffer(b"".join(content), dtype=np.uint8))
    np.save(f"{path}.texts.ends.npy", np.cumsum([len(each) for each in content], dtype=np.int64))


def _write(
    folder: Path, settings: dict[str, Any], read: Rows, columns: Columns, tokenizer: str, artifacts: dict[str, str]
) -> None:
    made = learn(
        columns,
        read.rows["train"],
        context=settings["context"],
        joined=settings.get("joined", ()),
        tokenizer=tokenizer,
        vocab_size=settings["vocab_size"],
        lowercase=settings.get("lowercase", False),
        masks=settings.get("masks", False),
        begins=settings.get("begins", False),
        predicted=settings.get("predicted", ()),
        joint=settings.get("joint", True),
    )
    made = replace(made, cut=settings.get("cut", made.cut))
    target = target_of(columns)
    classes = made.labels.get(target or "")
    meta: dict[str, Any] = {"settings": settings, "how": read.how, "copies": read.copies, "class_counts": None}
    meta |= {"grouped": read.grouped, "skipped": read.skipped}
    whole = settings.get("whole", ())
    digest = None if made.tokenizer is None else made.tokenizer.digest()
    build = {"settings": settings, "tokenizer": digest}
    if made.source_tokenizer is not None:
        build |= {"source_tokenizer": made.source_tokenizer.digest()}
    longer = write_rows(folder, read.rows, made, whole=whole, build=build)
    for split in SPLITS:
        np.save(folder / f"{split}.hashes.npy", read.hashes[split])
        for name in made.predicted if split != "train" else ():
            texts = [row[name] for row in read.rows[split]]
            _write_texts(folder / f"{split}.{list(columns).index(name)}", texts)
    if target is not None and classes is not None:
        counts = np.zeros(len(classes), dtype=np.int64)
        for part in read_parts(folder / f"train.{list(columns).index(target)}.npy"):
            counts += np.bincount(part, minlength=len(classes))
        meta["class_counts"] = counts.tolist()
    values = None if target is None or classes is not None else made.widths.get(target, 1)
    truncated = {split: 0 if split in whole else longer[split] for split in SPLITS}
    meta |= {"rows": {split: len(read.rows[split]) for split in SPLITS}, "truncated": truncated}
    meta |= {"longer": {split: longer[split] for split in SPLITS if split in whole}} if whole else {}
    meta |= {} if made.frame_width is None else {"frame_width": made.frame_width}
    mask = None if made.tokenizer is None else made.tokenizer.mask
    if made.source_tokenizer is not None:
        meta["source_vocab_size"] = made.source_tokenizer.vocab_size
    meta |= {"vocab_size": made.vocab_size, "mask": mask, "num_classes": None if classes is None else len(classes)}
    write_meta(folder, meta | {"num_values": values, "artifacts": made.artifacts() | artifacts})
