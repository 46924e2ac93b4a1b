"""The LightningDataModule for pairs of texts: two files with a sentence a line, or a table of two columns."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from losslab.contracts import DataInfo, Task
from losslab.data.formats.aligned_lines import aligned_lines
from losslab.data.opened import check_not_empty
from losslab.data.row_files import Paths, hash_files
from losslab.data.row_source import RowSource
from losslab.data.rows import RowsDataModule
from losslab.data.source_tokenizer import source_tokenizer_of
from losslab.data.splits import SPLITS
from losslab.data.stamps import kept
from losslab.data.table_format import FormatName, Row, Skipped
from losslab.data.tokenizer import tokenizer_of
from losslab.errors import UserError

SOURCE, TARGET = "source", "target"
_SHOWN = 4
_KEYS = {"train": (SOURCE, TARGET), "val": ("val_source", "val_target"), "test": ("test_source", "test_target")}


@dataclass(frozen=True)
class PairFiles(RowSource):
    """Line-aligned files: rows with the columns `source` and `target`.

    Args:
        paths: split → the files of its sources and those of its targets: FILE, GLOB or a list of these.
        encoding: of the files.
    """

    by_line = True
    paths: dict[str, tuple[Paths, Paths]]
    encoding: str = "utf-8"

    def check(self) -> None:
        _ = self.files

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
        return [(f"{one} and {other.name}", [SOURCE, TARGET]) for one, other in self.files[split]]

    def rows(self, split: str, columns: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        for one, other in self.files[split]:
            for number, source, target in aligned_lines(one, other, self.encoding):
                cells = {SOURCE: source, TARGET: target}
                yield f"{one} and {other.name}: line {number}", {name: cells[name] for name in columns}

    def hashes(self, memory: Path | None) -> dict[str, str]:
        every = [file for pairs in self.files.values() for pair in pairs for file in pair]
        parts = {split: [[str(file) for file in pair] for pair in pairs] for split, pairs in self.files.items()}
        hashes: dict[str, str] = kept(memory, every, ["pairs", 1, parts], self._hash)
        return hashes

    def _hash(self) -> dict[str, str]:
        """The hash of a split's sources is that of both sides: a record keeps one, by which data is compared."""
        found = {}
        for split in self.splits():
            source, target = _KEYS[split]
            found[f"data.{source}"] = hash_files([file for pair in self.files[split] for file in pair])
            found[f"data.{target}"] = hash_files([file for _, file in self.files[split]])
        return found

    def told(self) -> str:
        every = [file for pairs in self.files.values() for pair in pairs for file in pair]
        size = sum(file.stat().st_size for file in every)
        names = ", ".join(file.name for file in every[:_SHOWN]) + (", …" if len(every) > _SHOWN else "")
        return f"{len(every):,} line-aligned files ({names}), {size:,} bytes"


class PairsDataModule(RowsDataModule):
    """Pairs of texts, for task=translation. What is told of rows in `RowsDataModule` holds for pairs; those of which a
    text is empty are left out, and counted.

    Args:
        source, target: two files of which line n of one goes with line n of the other, also .gz and .zst: FILE, GLOB or
            a list of these.
        val_source, val_target, test_source, test_target: the same, of splits of their own.
        path: a table with the columns `source` and `target` instead (`RowsDataModule`), and val_path and test_path.
        columns: `source` and `target` → the table's columns, where they have other names.
        val_fraction, test_fraction: share of the pairs; default: a twentieth, but at least 100 of them and at most a
            quarter. A hash of the source decides where a pair belongs, so that all translations of it stay together.
        delimiter, quotes, header, encoding, format: of the table, see `RowsDataModule`.
        tokenizer: bytes, bpe (trained on the train split), or the path of a tokenizer.json.
        vocab_size: of the trained bpe, or of each of two.
        joint: source and target have one vocabulary, and a bpe is trained on both.
        lowercase: the trained bpe lowers the case of what it reads.
        context: the longest source, and the longest target, with their ends of text.
        longer: what is done with texts that are longer: they are cut at their end and counted, or refused.
        augment: changes to the sources of train (`Augmentation`).
        batch_size: pairs in one optimizer step, over all devices and micro-batches; the most of them with batch_tokens.
        batch_tokens: tokens in one optimizer step, of sources and targets, padding included, of at most `batch_size`
            pairs of similar length; None: `batch_size` pairs of any length.
        val_batch_size: pairs evaluated at once on each device.
        num_workers: processes that make batches.

    Raises:
        UserError: for missing or contradictory arguments; no pair is read yet.
    """

    def __init__(
        self,
        *,
        source: str | list[str] | None = None,
        target: str | list[str] | None = None,
        val_source: str | list[str] | None = None,
        val_target: str | list[str] | None = None,
        test_source: str | list[str] | None = None,
        test_target: str | list[str] | None = None,
        path: str | list[str] | None = None,
        val_path: str | list[str] | None = None,
        test_path: str | list[str] | None = None,
        columns: dict[str, str] | None = None,
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        delimiter: str | None = None,
        quotes: bool = True,
        header: list[str] | None = None,
        encoding: str = "utf-8",
        format: FormatName | None = None,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        joint: bool = True,
        lowercase: bool = False,
        context: int,
        longer: Literal["cut", "refuse"] = "cut",
        augment: dict[str, Any] | None = None,
        batch_size: int = 64,
        batch_tokens: int | None = None,
        val_batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        lines = {
            "train": (source, target),
            "val": (val_source, val_target),
            "test": (test_source, test_target),
        }
        tables = {"path": path, "val_path": val_path, "test_path": test_path}
        files = _line_files(lines, tables, encoding)
        if files is not None and columns:
            raise UserError("data.columns names columns of a table, and data.source and data.target have none")
        super().__init__(
            source=files,
            path=path,
            val_path=val_path,
            test_path=test_path,
            columns=columns,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            rules=2,
            delimiter=delimiter,
            quotes=quotes,
            header=header,
            encoding=encoding,
            format=format,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            lowercase=lowercase,
            context=context,
            augment=augment,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            val_batch_size=val_batch_size,
            num_workers=num_workers,
        )
        if not joint and tokenizer != "bpe":
            raise UserError(
                f"data.joint=false trains a bpe for the sources and another for the targets, and data.tokenizer="
                f"{tokenizer} is one for both: leave data.joint, or give data.tokenizer=bpe"
            )
        self.joint = joint
        self.longer = longer

    def prepare(self, cache: Path, task: Task) -> DataInfo:
        """Read and encode the pairs, or open what was encoded before.

        Raises:
            UserError: for files of unequal length, too few pairs, and texts that are too long where they are refused.
        """
        info = super().prepare(cache, task)
        if self.longer == "refuse" and any(self.store.meta["truncated"].values()):
            raise self._too_long(task)
        return info

    def _too_long(self, task: Task) -> UserError:
        """The sentence for the first text that is longer than the context: the pairs are read again for it."""
        count = sum(self.store.meta["truncated"].values())
        artifacts = self.store.meta["artifacts"]
        tokenizers = {SOURCE: source_tokenizer_of(artifacts), TARGET: tokenizer_of(artifacts)}
        for split in self.source.splits():
            for place, row, _ in self.reading.parsed(self.source, split, task.columns, Counter()):
                for name, tokenizer in tokenizers.items():
                    assert tokenizer is not None, "columns of text have a tokenizer"
                    ((tokens, _),) = tokenizer.encode([row[name]])
                    if len(tokens) + 1 > self.context:
                        return UserError(
                            f"{place}: its {name} has {len(tokens) + 1:,} tokens, its end among them, and is longer "
                            f"than data.context={self.context} ({count:,} texts are): give a longer model.context, or "
                            "data.longer=cut, which cuts such texts at their end"
                        )
        raise AssertionError("the store counted texts that are too long")


def _line_files(
    lines: dict[str, tuple[Paths | None, Paths | None]], tables: dict[str, Paths | None], encoding: str
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
    return PairFiles({split: (one, other) for split, (one, other) in given.items() if one and other}, encoding)


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
