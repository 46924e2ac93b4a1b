"""Rows of the `datasets` library: from the Hugging Face hub, or from a folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from losslab.data.row_source import RowSource
from losslab.data.splits import SPLITS
from losslab.data.stamps import kept
from losslab.data.table_format import Row, Skipped
from losslab.errors import UserError

_FORMAT = 1
_USUAL = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}
_NONE = "none"
_AT_ONCE = 1000
_LONGEST = 200
"""Characters of another library's error."""


class HfRows(RowSource):
    """A data set of the `datasets` library (extra `hf`). No code out of a data set is run.

    Names of a ClassLabel become labels; −1, which stands for a label that is held back, is no label.

    Args:
        name: on the hub.
        path: a folder, written by `save_to_disk` or with files that `datasets` reads, instead of a name.
        config: the name of a configuration (`sst2` of `glue`).
        revision: of the hub: a branch, tag or commit; default: the newest.
        train, val, test: the splits' names there; default: the usual one, if it is there. `none`: it is not read, but
            taken out of train.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        path: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
    ) -> None:
        if (name is None) == (path is None):
            raise UserError("give one of data.source.name=NAME (on the hub) and data.source.path=FOLDER")
        self.name = name
        self.path = None if path is None else Path(path).expanduser()
        self.config = config
        self.revision = revision
        self.chosen = {"train": train, "val": val, "test": test}

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self.tables)

    def columns(self, split: str) -> list[tuple[str, list[str]]]:
        return [(self._place(split), list(self.tables[split].column_names))]

    def rows(self, split: str, columns: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Row]]:
        table, place = self.tables[split].select_columns(list(columns)), self._place(split)
        names = {column: found for column in columns if (found := _label_names(table.features[column])) is not None}
        for start in range(0, len(table), _AT_ONCE):
            part = table[start : start + _AT_ONCE]
            for i in range(len(part[columns[0]])):
                row = {column: part[column][i] for column in columns}
                named = {column: _named(row[column], names[column]) for column in names}
                yield f"{place}: row {start + i + 1}", row | named

    def hashes(self, memory: Path | None) -> dict[str, str]:
        files = [Path(file["filename"]) for table in self.tables.values() for file in table.cache_files]
        about = ["hf", _FORMAT, {split: table._fingerprint for split, table in self.tables.items()}]
        return kept(memory, sorted(set(files)), about, self._hash)

    def _hash(self) -> dict[str, str]:
        """SHA-256 of every row, with the names of labels."""
        digest = hashlib.sha256()
        for split in self.splits():
            columns = sorted(self.tables[split].column_names)
            digest.update(json.dumps([split, *columns]).encode())
            for _, row in self.rows(split, columns, Skipped()):
                digest.update(json.dumps(row, default=repr).encode())
        return {"data.source": digest.hexdigest()}

    def told(self) -> str:
        names = ", ".join(f"{len(table):,} of {table.split or split}" for split, table in self.tables.items())
        return f"{self._called()} ({names})"

    @cached_property
    def tables(self) -> dict[str, Any]:
        """Split → its table. Raises UserError for what cannot be loaded, and for splits that are not there."""
        found = self._load()
        if hasattr(found, "column_names") and not isinstance(found, dict):  # one table, without a split's name
            found = {"train": found}
        tables = {}
        for split, name in self.chosen.items():
            if name == _NONE and split != "train":
                continue
            usual = next((usual for usual in _USUAL[split] if usual in found), None)
            if name is None and usual is None and split != "train":
                continue
            if (wanted := name or usual) not in found:
                raise UserError(
                    f"{self._called()} has no split {wanted or 'train'!r}, but {', '.join(map(repr, found))}: write "
                    f"data.source.{split}=NAME"
                )
            tables[split] = found[wanted]
        return tables

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError:
            raise UserError("data=hf needs the package datasets: pip install 'losslab[hf]'") from None
        if self.path is not None and not self.path.is_dir():
            raise UserError(f"data.source.path={self.path} is no folder")
        client = logging.getLogger("huggingface_hub")  # it tells of each retry, and the sentence below of them all
        level = client.level
        client.setLevel(logging.ERROR)
        try:
            if self.path is not None and any(self.path.glob("dataset_*.json")):
                return datasets.load_from_disk(str(self.path))
            return datasets.load_dataset(str(self.path or self.name), self.config, revision=self.revision)
        except Exception as error:  # of the library, of the hub's client and of the network: hardly two alike
            told = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
            cure = (
                "is its name right, and is there a network? A set that was fetched elsewhere by save_to_disk: "
                "data.source.path=FOLDER"
                if self.path is None
                else "a folder of save_to_disk, or of parquet, csv or json files"
            )
            raise UserError(f"{self._called()} cannot be loaded: {told}; {cure}") from None
        finally:
            client.setLevel(level)

    def _called(self) -> str:
        named = f"data.source.name={self.name}" if self.path is None else f"data.source.path={self.path}"
        return named if self.config is None else f"{named} ({self.config})"

    def _place(self, split: str) -> str:
        return f"{self.name or self.path}, {self.tables[split].split or split}"


def _label_names(feature: Any) -> list[str] | None:
    """The names of a column of class labels, or of lists of them."""
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    return None if names is None else list(names)


def _named(cell: Any, names: list[str]) -> Any:
    if isinstance(cell, list):
        return [_named(item, names) for item in cell]
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else None
