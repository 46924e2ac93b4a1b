"""From a source to parsed rows of train, val and test: what is read, what is passed over, and what is refused."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from losslab.data.cells import Columns, parse_row
from losslab.data.columns import CLASSES, target_of
from losslab.data.row_source import RowSource
from losslab.data.row_splits import hash64, split_by_label, split_rows
from losslab.data.splits import SPLITS
from losslab.data.stored_rows import SplitRows, StoredRows
from losslab.data.table_format import Row, Skipped
from losslab.errors import UserError

Rules = Literal[1, 2]
Unlabelled = Literal["refuse", "skip"]
_FEWEST = {"train": 1, "val": 2, "test": 1}
"""Rows; val has two halves, one of which fits a temperature."""
_EMPTY, _UNLABELLED = "rows with an empty text", "rows without a target"


@dataclass(frozen=True)
class Rows:
    """The rows of each split, parsed, and what there is to say about them."""

    rows: dict[str, SplitRows]
    hashes: dict[str, NDArray[np.uint64]]
    """[N] of each split: 64 bits of a hash of each row's inputs."""
    how: str
    """The rule of the splits, for people."""
    copies: dict[str, int]
    """Rows of val and test whose inputs are those of a row in an earlier split."""
    grouped: dict[str, int]
    """Rows of val and test whose group has rows in an earlier split: a split of its own may hold such."""
    skipped: dict[str, int]
    """Name of the rows that were passed over → their number."""


@dataclass(frozen=True)
class Reading:
    """How rows are read and split.

    Args:
        names: the task's name of a column → the source's, where they differ.
        val_fraction, test_fraction: share of the rows; None: a twentieth, but at least 100 and at most a quarter.
        rules: 2: rows with an empty text are left out, and splits hold each label as often as all rows do. 1: as it was
            before: they are kept, and each row's hash decides.
        group: a column of the source whose equal cells stay in one split.
        unlabelled: what is done with rows without a target.
        predicted: columns of text that are the target (`Task.predicted`).
    """

    names: dict[str, str] = field(default_factory=dict)
    val_fraction: float | None = None
    test_fraction: float | None = None
    rules: Rules = 2
    group: str | None = None
    unlabelled: Unlabelled = "refuse"
    predicted: tuple[str, ...] = ()

    def check(self, source: RowSource) -> None:
        """Refuse what cannot work before any row is read. Raises UserError."""
        for name, column in self.names.items():
            if not isinstance(column, str):
                raise UserError(f"data.columns.{name} must be the name of a column, not {column!r}")
        own = source.splits()
        for split in ("val", "test"):
            fraction = getattr(self, f"{split}_fraction")
            if fraction is not None and not 0 < fraction < 1:
                raise UserError(f"data.{split}_fraction must be above 0 and below 1, not {fraction}")
            if fraction is not None and split in own:
                raise UserError(
                    f"give data.{split}_path or data.{split}_fraction, not both: {split} has rows of its own"
                )
        if (held_back := (self.val_fraction or 0) + (self.test_fraction or 0)) >= 1:
            raise UserError(
                f"data.val_fraction and data.test_fraction leave nothing to train on: together they are {held_back:g}"
            )
        if self.group is not None and len(own) == len(SPLITS):
            raise UserError(f"data.group={self.group} keeps rows in one split, and val and test have rows of their own")

    def of(self, columns: Columns) -> dict[str, str]:
        """The task's name of each column → the source's."""
        return {name: self.names.get(name, name) for name in columns}

    def check_columns(self, source: RowSource, columns: Columns) -> None:
        """Refuse a source that lacks a column, and one column for two. Raises UserError."""
        names = self.of(columns)
        for name, column in names.items():
            if other := next((o for o, c in names.items() if c == column and o != name), None):
                key = name if name in self.names else other
                raise UserError(
                    f"data.columns.{key}={column}: that column is {other if key == name else name!s} already, and a "
                    f"column has one use; write data.columns.{key}=NAME of another one"
                )
        wanted = names if self.group is None else names | {"": self.group}
        for split in source.splits():
            for place, there in source.columns(split):
                for name, column in wanted.items():
                    if column not in there:
                        raise UserError(_lacking(place, there, name, column))

    def read(self, source: RowSource, columns: Columns, folder: Path) -> Rows:
        """Read every row once, and split what has no split of its own.

        Args:
            folder: where the parsed rows are kept until they are encoded.

        Raises:
            UserError: for cells that do not fit their columns, labels that train lacks, and too few rows.
        """
        skipped: Skipped = Counter()
        stored, hashes, groups = StoredRows(folder, list(columns)), array("Q"), array("Q")
        labels, names = list[str](), dict[str, str]()  # a name is held once, however many rows have it
        own, counts = source.splits(), dict.fromkeys(SPLITS, 0)
        by_label = self._by_label(columns)
        for split in (split for split in SPLITS if split in own):
            also = [] if self.group is None else [self.group]
            for _, row, cells in self.parsed(source, split, columns, skipped, also=also):
                stored.append(row)
                hashes.append(_hash(row, columns, self.predicted))
                if self.group is not None:  # a row without a group is one of its own
                    group = cells[self.group]
                    groups.append(hashes[-1] if group in (None, "") else hash64(str(group)))
                elif by_label is not None and split == "train":
                    labels.append(names.setdefault(row[by_label], row[by_label]))
                counts[split] += 1
        inputs, grouped = np.array(hashes, dtype=np.uint64), np.array(groups, dtype=np.uint64)
        del hashes, groups
        shares = {split: getattr(self, f"{split}_fraction") for split in ("val", "test") if split not in own}
        dealt = counts["train"]
        split_of = np.repeat(np.arange(len(SPLITS)), [counts[split] for split in SPLITS]).astype(np.int8)
        chosen, rule = self._split(inputs[:dealt], grouped[:dealt], labels, by_label, shares)
        split_of[:dealt] = np.fromiter(map(SPLITS.index, chosen), dtype=np.int8, count=dealt)
        del chosen, labels
        numbers = {split: np.flatnonzero(split_of == code) for code, split in enumerate(SPLITS)}
        rows = {split: SplitRows(stored, found) for split, found in numbers.items()}
        self._check_rows(source, rows, columns, skipped)
        how = " and ".join(f"{split} its own" for split in ("val", "test") if split in own)
        if shares:
            how += ("; of the rest, " if how else "") + rule
        of_inputs = {split: inputs[found] for split, found in numbers.items()}
        of_groups = {} if self.group is None else {split: grouped[found] for split, found in numbers.items()}
        passed = {what: n for what, n in skipped.items() if n}
        return Rows(rows, of_inputs, how, _copies(of_inputs), _copies(of_groups), passed)

    def parsed(
        self, source: RowSource, split: str, columns: Columns, skipped: Skipped, *, also: Sequence[str] = ()
    ) -> Iterator[tuple[str, Row, Row]]:
        """Place and row, without what is passed over, and the source's own cells, those of `also` among them.

        Raises:
            UserError: naming the place of what cannot be used.
        """
        names, target = self.of(columns), target_of(columns)
        texts = [name for name, kind in columns.items() if kind in _TEXTS and name != target]
        wanted = [*names.values(), *also]
        for place, cells in source.rows(split, list(dict.fromkeys(wanted)), skipped):
            own = {name: cells[column] for name, column in names.items()}
            empty = [_is_empty(own[name]) for name in texts]
            if self.rules > 1 and texts and (all(empty) or (self.predicted and any(empty))):
                skipped[_EMPTY] += 1
                continue
            missing = target is not None and _is_missing(own[target], columns[target])
            if missing and self.unlabelled == "skip":
                skipped[_UNLABELLED] += 1
                continue
            try:
                row = parse_row(own, columns)
            except ValueError as error:
                cure = "; data.unlabelled=skip leaves such rows out" if missing else ""
                raise UserError(f"{place} cannot be used: {error}{cure}") from None
            yield place, row, cells

    def _by_label(self, columns: Columns) -> str | None:
        """The column of labels within each of which rows are split, if there is one."""
        target = target_of(columns)
        within = self.group is None and self.rules > 1 and target is not None and columns[target] == "label"
        return target if within else None

    def _split(
        self,
        hashes: NDArray[np.uint64],
        groups: NDArray[np.uint64],
        labels: Sequence[str],
        by_label: str | None,
        shares: Mapping[str, Any],
    ) -> tuple[list[str], str]:
        """The split of each row, and the rule for people."""
        if self.group is not None:
            return split_rows(groups, shares), f"the hash of {self.group} decides: its rows stay together"
        if by_label is not None:
            return split_by_label(hashes, labels, shares), f"each row's hash decides, within each {by_label}"
        return split_rows(hashes, shares), "each row's hash decides"

    def _check_rows(self, source: RowSource, rows: Mapping[str, SplitRows], columns: Columns, skipped: Skipped) -> None:
        for split, fewest in _FEWEST.items():
            if len(rows[split]) < fewest:
                raise UserError(
                    f"{source.told()}: too few rows: the {split} split has {len(rows[split])} of them, and needs at "
                    f"least {fewest}; equal rows stay in one split{_left_out(skipped)}"
                )
        for name, kind in columns.items():
            if kind in CLASSES:
                known = {label for row in rows["train"] for label in _labels(row[name])}
                for split in ("val", "test"):
                    found = {label for row in rows[split] for label in _labels(row[name])}
                    if strangers := found - known:
                        raise self._unseen(source, split, columns, name, strangers)

    def _unseen(self, source: RowSource, split: str, columns: Columns, name: str, strangers: set[str]) -> UserError:
        """The sentence for labels that train lacks, with the place of the first one: the rows are read again for it."""
        of = split if split in source.splits() else "train"
        parsed = self.parsed(source, of, columns, Counter())
        place, label = next(
            (place, label) for place, row, _ in parsed for label in _labels(row[name]) if label in strangers
        )
        what, such = f"the {name} {label!r}", "labels"
        if columns[name] == "characters":
            what, such = f"the character {label!r} in its {name}", "characters"
        more = f" (and {len(strangers) - 1:,} more such {such})" if len(strangers) > 1 else ""
        return UserError(
            f"{place}: no row of train has {what}{more}, and this row is one to evaluate on ({split}): "
            "add such rows to train, or leave them out here"
        )


_TEXTS = ("text", "words")


def _lacking(place: str, there: list[str], name: str, column: str) -> str:
    shown = ", ".join(map(repr, there)) if there else "nothing"
    key = f"data.columns.{name}" if name else "data.group"
    sign = next((sign for sign in (";", "\t", "|", ",") if len(there) == 1 and sign in there[0]), None)
    divided = "" if sign is None else f", or data.delimiter={sign!r}, which divides that name"
    return f"{key}={column}: {place} has no such column, but {shown}; write {key}=NAME{divided}"


def _is_empty(cell: Any) -> bool:
    return not cell.strip() if isinstance(cell, str) else cell == []


def _is_missing(cell: Any, kind: str) -> bool:
    """Whether a cell holds no target. A label may be called NA or null; a number may not."""
    if isinstance(cell, str):
        return not cell.strip() or (kind in ("value", "values") and cell.strip().lower() in ("nan", "na", "null"))
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _labels(cell: str | list[str]) -> set[str]:
    return {cell} if isinstance(cell, str) else set(cell)


def _left_out(skipped: Skipped) -> str:
    return "".join(f"; left out: {count:,} {what}" for what, count in skipped.items() if count)


def _hash(row: Row, columns: Columns, predicted: Sequence[str]) -> int:
    """A hash of a row's inputs: equal inputs fall into one split, whatever their targets."""
    targets = (target_of(columns), *predicted)
    inputs = [_plain(row[name], kind) for name, kind in columns.items() if name not in targets]
    return hash64(inputs or [row])


def _plain(cell: Any, kind: str) -> Any:
    return hashlib.sha256(cell[1]).hexdigest() if kind == "frames" else cell


def _copies(hashes: Mapping[str, NDArray[np.uint64]]) -> dict[str, int]:
    """Rows of val and test whose hash is that of a row in an earlier split; none without hashes."""
    known, copies = np.empty(0, dtype=np.uint64), {}
    for split in SPLITS if hashes else ():
        copies[split] = int(np.isin(hashes[split], known, kind="sort").sum())
        known = np.concatenate([known, hashes[split]])
    return {split: copies.get(split, 0) for split in ("val", "test")}
