"""Line-aligned files as a source of rows: a sentence a line, and its translations in the same line of other files."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from losslab.data.formats.aligned_lines import aligned_lines
from losslab.data.opened import check_not_empty
from losslab.data.row_files import Paths, hash_files
from losslab.data.row_source import RowSource
from losslab.data.splits import SPLITS
from losslab.data.stamps import kept
from losslab.data.table_format import Row, Skipped
from losslab.errors import UserError

SOURCE, TARGET = "source", "target"
_SHOWN = 4
_KEYS = {"train": (SOURCE, TARGET), "val": ("val_source", "val_target"), "test": ("test_source", "test_target")}


@dataclass(frozen=True)
class PairFiles(RowSource):
    """Line-aligned files: rows with the columns `source` and `target`, and those of `reference_columns`.

    Args:
        paths: split → the files of its sources and those of its targets: FILE, GLOB or a list of these.
        encoding: of the files.
        references: split → further translations, FILE or GLOB of each.
    """

    by_line = True
    paths: dict[str, tuple[Paths, Paths]]
    encoding: str = "utf-8"
    references: dict[str, list[str]] = field(default_factory=dict)

    def check(self) -> None:
        _ = self.files, self.reference_files

    def reference_columns(self, split: str) -> list[str]:
        """A name for each further translation."""
        return [f"reference {number}" for number, _ in enumerate(self.references.get(split, ()), start=2)]

    @cached_property
    def reference_files(self) -> dict[str, list[list[Path]]]:
        """Split → the files of each further translation, one for each file of sources. Raises UserError."""
        found = {}
        for split, streams in self.references.items():
            key, sources = f"data.{split}_references", len(self.files[split])
            found[split] = [_find(path, key) for path in streams]
            for path, own in zip(streams, found[split], strict=True):
                if len(own) != sources:
                    raise UserError(
                        f"{key}: {path} is {len(own):,} files, and there are {sources:,} of sources: each of these has "
                        "one of every translation, in the same order"
                    )
        return found

    def _together(self, split: str) -> list[list[Path]]:
        """The files that go together line by line: source, target and further translations."""
        others = self.reference_files.get(split, [])
        return [[*pair, *(own[i] for own in others)] for i, pair in enumerate(self.files[split])]

    @cached_property
    def files(self) -> dict[str, list[tuple[Path, Path]]]:
        """The pairs of files of each split. Raises UserError."""
        found = {}
        for split, both in self.paths.items():
            keys = [f"data.{key}" for key in _KEYS[split]]
            one, other = (_find(paths, key) for paths, key in zip(both, keys, strict=True))
            if len(one) != len(other):
                raise UserError(
                    f"{keys[0]} names {len(one):,} files and {keys[1]} {len(other):,}: each file of sources has one of "
                    "targets, in the same order"
                )
            if same := next((a for a, b in zip(one, other, strict=True) if a.resolve() == b.resolve()), None):
                raise UserError(f"{keys[0]} and {keys[1]} name the same file, {same}")
            found[split] = list(zip(one, other, strict=True))
        return found

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self.files)

    def columns(self, split: str) -> list[tuple[str, list[str]]]:
        names = [SOURCE, TARGET, *self.reference_columns(split)]
        return [(f"{one} and {other.name}", names) for one, other in self.files[split]]

    def rows(self, split: str, columns: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        names = [SOURCE, TARGET, *self.reference_columns(split)]
        for files in self._together(split):
            for number, lines in aligned_lines(files, self.encoding):
                cells = dict(zip(names, lines, strict=True))
                yield f"{files[0]} and {files[1].name}: line {number}", {name: cells[name] for name in columns}

    def hashes(self, memory: Path | None) -> dict[str, str]:
        together = {split: self._together(split) for split in self.files}
        every = [file for parts in together.values() for files in parts for file in files]
        parts = {split: [[str(file) for file in files] for files in own] for split, own in together.items()}
        hashes: dict[str, str] = kept(memory, every, ["pairs", 1, parts], self._hash)
        return hashes

    def _hash(self) -> dict[str, str]:
        """The hash of a split's sources is that of both sides: a record keeps one, by which data is compared."""
        found = {}
        for split in self.splits():
            source, target = _KEYS[split]
            found[f"data.{source}"] = hash_files([file for pair in self.files[split] for file in pair])
            found[f"data.{target}"] = hash_files([file for _, file in self.files[split]])
        for split, streams in self.reference_files.items():
            found[f"data.{split}_references"] = hash_files([file for own in streams for file in own])
        return found

    def told(self) -> str:
        every = [file for pairs in self.files.values() for pair in pairs for file in pair]
        size = sum(file.stat().st_size for file in every)
        names = ", ".join(file.name for file in every[:_SHOWN]) + (", …" if len(every) > _SHOWN else "")
        return f"{len(every):,} line-aligned files ({names}), {size:,} bytes"


def line_files(
    lines: dict[str, tuple[Paths | None, Paths | None]],
    tables: dict[str, Paths | None],
    encoding: str,
    references: dict[str, list[str]],
) -> PairFiles | None:
    """The files that were named line by line; None where a table was. Raises UserError for neither, both and halves."""
    given = {split: pair for split, pair in lines.items() if pair != (None, None)}
    table = next((key for key, path in tables.items() if path is not None), None)
    if not given:
        if table is None:
            raise UserError(
                "data.source and data.target are missing: data=pairs data.source=train.de data.target=train.en, two "
                "files with a sentence a line, or data.path=FILE, a table with the columns source and target"
            )
        return None
    first = next(key for split, pair in given.items() for key, path in zip(_KEYS[split], pair, strict=True) if path)
    if table is not None:
        raise UserError(f"give data.{first} or data.{table}, not both: two files with a sentence a line, or a table")
    for split, pair in given.items():
        for key, path, other in zip(_KEYS[split], pair, reversed(_KEYS[split]), strict=True):
            if path is None:
                raise UserError(f"data.{key} is missing: data.{other} is one of two files, line by line")
    if "train" not in given:
        raise UserError(f"data.source and data.target are missing: data.{first} is not what a model is trained on")
    paths = {split: (one, other) for split, (one, other) in given.items() if one and other}
    if alone := next((split for split in references if split not in paths), None):
        raise UserError(f"data.{alone}_references goes with data.{alone}_source and data.{alone}_target, line by line")
    return PairFiles(paths, encoding, references)


def _find(paths: Paths, key: str) -> list[Path]:
    """The files that FILE, GLOB or a list of these names. Raises UserError where there are none."""
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str) else paths:
        place = Path(path).expanduser()
        files = [place] if place.is_file() else [Path(p) for p in sorted(glob.glob(str(place)))]  # noqa: PTH207
        if not path.strip() or not files:
            raise UserError(f"{key}={path} does not exist")
        if folder := next((file for file in files if not file.is_file()), None):
            raise UserError(f"{key}={path} is no file: {folder}; name the file whose lines are the sentences")
        found += files
    for file in found:
        check_not_empty(file)
    if not found:
        raise UserError(f"{key} is an empty list: {key}=FILE")
    return found
