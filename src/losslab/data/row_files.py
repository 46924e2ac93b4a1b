"""Rows of a person's own files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from losslab.console import say
from losslab.data.own_splits import own_splits
from losslab.data.row_source import RowSource
from losslab.data.splits import SPLITS
from losslab.data.stamps import kept
from losslab.data.table_format import Row, Skipped, TableFormat
from losslab.data.tables import SUFFIXES, column_names, find_tables, rows_of
from losslab.errors import UserError

Paths = str | list[str]
_SHOWN = 4
_LARGE = 10**8
"""Bytes of files that take long to read."""


@dataclass(frozen=True)
class FileRows(RowSource):
    """Files of rows.

    Args:
        path, val_path, test_path: FILE, DIR, GLOB or a list of these. Files that val_path and test_path name are left
            out of path, and where path is a folder or a glob, names such as train.csv and test.csv are its own splits.
        form: how the files are written.
        own: look for splits that path brings along.
    """

    path: Paths
    val_path: Paths | None = None
    test_path: Paths | None = None
    form: TableFormat = field(default_factory=TableFormat)
    own: bool = True

    def check(self) -> None:
        self.form.check()
        _ = self.files

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """The files of train, and of val and test where they have their own. Raises UserError."""
        given = {split: getattr(self, f"{split}_path") for split in ("val", "test")}
        named = {
            split: find_tables(path, f"data.{split}_path", self.form)
            for split, path in given.items()
            if path is not None
        }
        found = find_tables(self.path, "data.path", self.form)
        if not self.own:
            return {"train": found, **named}
        elsewhere = {file.resolve() for files in named.values() for file in files}
        rest = [file for file in found if file.resolve() not in elsewhere]
        if not rest:
            raise UserError("data.path names no file beside those of data.val_path and data.test_path")
        root = Path(self.path).expanduser() if isinstance(self.path, str) and Path(self.path).is_dir() else None
        splits = own_splits(rest, root, (*SUFFIXES, ".txt")) if len(rest) > 1 else {}
        if not splits:
            return {"train": rest, **named}
        if twice := [split for split in named if split in splits]:
            raise UserError(
                f"data.path brings a split {twice[0]} along ({splits[twice[0]][0].name}), and data.{twice[0]}_path "
                "names another: leave that out, or let data.path name the files of train"
            )
        return splits | named

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self.files)

    def columns(self, split: str) -> list[tuple[str, list[str]]]:
        return [(str(file), column_names(file, self.form)) for file in self.files[split]]

    def rows(self, split: str, columns: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        if (size := sum(file.stat().st_size for file in self.files[split])) > _LARGE:
            say(f"reading {size / 1e6:,.0f} MB of rows of {split} …")
        for file in self.files[split]:
            for place, cells in rows_of(file, list(columns), self.form, skipped):
                yield f"{file}: {place}", cells

    def hashes(self, memory: Path | None) -> dict[str, str]:
        parts = {split: [str(file) for file in files] for split, files in self.files.items()}
        every = [file for files in self.files.values() for file in files]
        hashes: dict[str, str] = kept(memory, every, ["rows", 2, parts], self._hash)
        return hashes

    def _hash(self) -> dict[str, str]:
        keys = {"train": "data.path", "val": "data.val_path", "test": "data.test_path"}
        return {keys[split]: hash_files(files) for split, files in self.files.items()}

    def told(self) -> str:
        every = [file for files in self.files.values() for file in files]
        size = sum(file.stat().st_size for file in every)
        names = ", ".join(file.name for file in every[:_SHOWN]) + (", …" if len(every) > _SHOWN else "")
        return f"{len(every):,} file{'s' * (len(every) != 1)} ({names}), {size:,} bytes"


def hash_files(files: Sequence[Path]) -> str:
    """SHA-256 of what files hold, one after the other; names and places of files do not count."""
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def source_of(
    given: RowSource | None, path: Paths | None, files: FileRows, names: Mapping[str, str], context: int
) -> RowSource:
    """The source that data.source or data.path names. Raises UserError where none or both are set.

    Args:
        names, context: see `RowSource.over`.
    """
    over = given.over(files, names, context) if isinstance(given, RowSource) else None
    if (given is None or over is not None) and path is None:
        raise UserError(
            "data.path is missing: data=csv data.path=FILE|DIR|GLOB (.csv, .tsv, .jsonl, .parquet, also .gz and .zst)"
        )
    if given is None or over is not None:
        return over or files
    for name in (name for name in ("path", "val_path", "test_path") if getattr(files, name)):
        raise UserError(f"give data.source or data.{name}, not both: {type(given).__name__} has rows of its own")
    if not isinstance(given, RowSource):
        raise UserError(f"data.source: {type(given).__name__} must derive from losslab.data.row_source.RowSource")
    return given
