"""How files of rows are written: the keys of `data` that say it, and what every reader of a format is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from losslab.errors import UserError

Row = dict[str, Any]
FormatName = Literal["csv", "tsv", "jsonl", "parquet", "label_first", "conll", "class_folders"]
Skipped = Counter[str]
"""Name of the rows that were passed over (`blank lines`) → their number."""


@dataclass(frozen=True)
class TableFormat:
    """Form of the files.

    Args:
        delimiter: of csv, one character; None: the one that divides the first line most often, a tab in .tsv.
        quotes: of csv, a cell may stand in quotation marks, as one that holds the delimiter must.
        encoding: a name of an encoding that Python has.
        header: the names of csv's columns, where the first line does not hold them.
        name: the format of all files; None: each file's suffix says it.
    """

    delimiter: str | None = None
    quotes: bool = True
    encoding: str = "utf-8"
    header: tuple[str, ...] | None = None
    name: FormatName | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> TableFormat:
        """The format that the configuration of a data set says."""
        header = data.get("header")
        return cls(
            delimiter=data.get("delimiter"),
            quotes=data.get("quotes", True),
            encoding=data.get("encoding", "utf-8"),
            header=None if header is None else tuple(header),
            name=data.get("format"),
        )

    def check(self) -> None:
        """Raises UserError for what is no delimiter, no encoding and no header."""
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise UserError(f"data.delimiter must be one character, not {self.delimiter!r}; a tab is written '\\t'")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise UserError(
                f"data.encoding={self.encoding} is no encoding of text that Python has: utf-8, utf-16, latin-1, "
                "cp1252, …"
            ) from None
        if self.header is not None and (not self.header or len(set(self.header)) != len(self.header)):
            raise UserError(f"data.header={list(self.header)} must name each column once")


class Format(NamedTuple):
    """The reader of a format. Both functions raise UserError for a file that cannot be read."""

    suffixes: tuple[str, ...]
    """Suffixes of its files, in lower case, without that of a packed file."""
    names: Callable[[Path, TableFormat], list[str]]
    """The columns of a file, from its beginning."""
    rows: Callable[[Path, list[str], TableFormat, Skipped], Iterator[tuple[str, Row]]]
    """The cells of these columns, row by row, each with its place in the file: `line 7`."""
