"""A person's own table: its files, and which of its rows belong to train, val and test."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from losslab.data.columns import Columns, parse_row, target_of
from losslab.data.splits import SPLITS
from losslab.data.tables import Row, TableFormat, check_columns, find_tables, read_rows
from losslab.errors import UserError

_SHARE, _USUAL_ROWS, _LARGEST_SHARE = 0.05, 100, 0.25
_FEWEST = {"train": 1, "val": 2, "test": 1}
"""Rows; val has two halves, one of which fits a temperature."""


@dataclass(frozen=True)
class Rows:
    """The rows of each split, parsed, and what there is to say about them."""

    rows: dict[str, list[Row]]
    hashes: dict[str, list[int]]
    """64 bits of a hash of each row's inputs."""
    how: str
    """The rule of the splits, for people."""
    copies: dict[str, int]
    """Rows of val and test whose inputs are those of a row in an earlier split."""


@dataclass(frozen=True)
class RowSource:
    """Files of rows, and their splits.

    Args:
        path, val_path, test_path: FILE or GLOB.
        columns: the task's name of a column → the file's, where they differ.
        val_fraction, test_fraction: share of the rows; None: a twentieth, but at least 100 and at most a quarter.
        form: how csv is written.
    """

    path: str
    val_path: str | None = None
    test_path: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    val_fraction: float | None = None
    test_fraction: float | None = None
    form: TableFormat = field(default_factory=TableFormat)

    def check(self) -> None:
        """Refuse what cannot work before any row is read. Raises UserError."""
        self.form.check()
        for split in ("val", "test"):
            fraction, path = getattr(self, f"{split}_fraction"), getattr(self, f"{split}_path")
            if fraction is not None and not 0 < fraction < 1:
                raise UserError(f"data.{split}_fraction must be above 0 and below 1, not {fraction}")
            if fraction is not None and path is not None:
                raise UserError(f"give data.{split}_path or data.{split}_fraction, not both")
        if (self.val_fraction or 0) + (self.test_fraction or 0) >= 1:
            raise UserError("data.val_fraction and data.test_fraction leave nothing to train on: together they are 1")
        self.files()

    def files(self) -> dict[str, list[Path]]:
        """Key → its files."""
        paths = {"path": self.path, "val_path": self.val_path, "test_path": self.test_path}
        return {key: find_tables(path, f"data.{key}") for key, path in paths.items() if path is not None}

    def names(self, columns: Columns) -> dict[str, str]:
        """The task's name of each column → the file's."""
        return {name: self.columns.get(name, name) for name in columns}

    def check_columns(self, columns: Columns) -> None:
        """Refuse files that lack a column. Reads the first row of each file; raises UserError."""
        for files in self.files().values():
            for file in files:
                check_columns(file, self.names(columns), self.form)

    def read(self, columns: Columns) -> Rows:
        """Read every file once, and split what has no split of its own.

        Raises:
            UserError: for cells that do not fit their columns, and for too few rows.
        """
        files = self.files().items()
        parts = {key: [row for path in paths for row in self._rows(path, columns)] for key, paths in files}
        hashes = {key: [_hash(row, columns) for row in rows] for key, rows in parts.items()}
        own = {split for split in ("val", "test") if f"{split}_path" in parts}
        shares = {split: getattr(self, f"{split}_fraction") for split in ("val", "test") if split not in own}
        split_of = split_rows(hashes["path"], shares)
        rows = {split: [row for row, s in zip(parts["path"], split_of, strict=True) if s == split] for split in SPLITS}
        found = {split: [h for h, s in zip(hashes["path"], split_of, strict=True) if s == split] for split in SPLITS}
        for split in own:
            rows[split], found[split] = parts[f"{split}_path"], hashes[f"{split}_path"]
        for split, fewest in _FEWEST.items():
            if len(rows[split]) < fewest:
                raise UserError(
                    f"data.path={self.path} has too few rows: its {split} split has {len(rows[split])} of them, and "
                    f"needs at least {fewest}; equal rows stay in one split"
                )
        how = " and ".join(f"{split} its own" for split in ("val", "test") if split in own)
        if shares:
            how += ("; of the rest, " if how else "") + "each row's hash decides"
        return Rows(rows, found, how, _copies(found))

    def _rows(self, file: Path, columns: Columns) -> list[Row]:
        names = self.names(columns)
        rows = []
        for number, cells in enumerate(read_rows(file, list(names.values()), self.form), start=1):
            try:
                rows.append(parse_row({name: cells[column] for name, column in names.items()}, columns))
            except ValueError as error:
                raise UserError(f"{file}: row {number} cannot be used: {error}") from None
        return rows


def split_rows(hashes: Sequence[int], shares: dict[str, float | None]) -> list[str]:
    """The split of each row: in the order of their hashes, rows go to val, then to test, until each has its share; the
    rest is train. Rows of equal hashes stay together.

    Args:
        shares: val and test, those of them that are taken out of these rows, → share of the rows, or None.
    """
    distinct, inverse, counts = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True, return_counts=True)
    chosen = np.full(len(distinct), "train", dtype=object)
    at = 0
    for split, share in shares.items():
        usual = min(max(_SHARE * len(hashes), _USUAL_ROWS), _LARGEST_SHARE * len(hashes))
        wanted, taken = usual if share is None else share * len(hashes), 0
        while at < len(distinct) and taken < wanted:
            chosen[at] = split
            taken += int(counts[at])
            at += 1
    return list(chosen[inverse])


def hash_files(files: Sequence[Path]) -> str:
    """SHA-256 of what files hold, one after the other; names and places of files do not count."""
    digest = hashlib.sha256()
    for file in files:
        content = hashlib.sha256()
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                content.update(block)
        digest.update(content.digest())
    return digest.hexdigest()


def _hash(row: Row, columns: Columns) -> int:
    """64 bits of SHA-256 of a row's inputs: equal inputs fall into one split, whatever their targets."""
    target = target_of(columns)
    inputs = [row[name] for name in columns if name != target] or [row]
    return int.from_bytes(hashlib.sha256(json.dumps(inputs).encode()).digest()[:8], "big")


def _copies(hashes: dict[str, list[int]]) -> dict[str, int]:
    known: set[int] = set()
    copies: Counter[str] = Counter()
    for split in SPLITS:
        copies[split] = sum(value in known for value in hashes[split])
        known.update(hashes[split])
    return {split: copies[split] for split in ("val", "test")}
