"""Files of rows: csv by the standard library, and JSON lines. Each row is a mapping of column names to cells."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losslab.errors import UserError

Row = dict[str, Any]
_TABLES = (".csv", ".tsv")
_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*_TABLES, *_LINES)
_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_CELL = 2**31 - 1
_WAY_OUT = "write it as .csv or .jsonl (pandas' to_csv and to_json(orient='records', lines=True) do that)"


@dataclass(frozen=True)
class TableFormat:
    """Format of csv files.

    Args:
        delimiter: one character; None: the one that divides the first line most often, a tab in .tsv.
        quotes: a cell may stand in quotation marks, as one that holds the delimiter must.
    """

    delimiter: str | None = None
    quotes: bool = True

    def check(self) -> None:
        """Raises UserError for what is no delimiter."""
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise UserError(f"data.delimiter must be one character, not {self.delimiter!r}; a tab is written '\\t'")


def find_tables(path: str, key: str) -> list[Path]:
    """The files that FILE or GLOB names, sorted. Raises UserError where there are none, or where one holds no rows."""
    if not path.strip():
        raise UserError(f"{key} is empty: {key}=FILE|GLOB (an unset variable of the shell, perhaps)")
    try:
        place = Path(path).expanduser()
        if place.is_dir():
            raise UserError(f"{key}={path} is a folder: name its files, {key}='{path.rstrip('/')}/*.csv'")
        found = [place] if place.is_file() else sorted(Path(p) for p in glob.glob(str(place), recursive=True))  # noqa: PTH207
        files = [file for file in found if file.is_file()]
    except (OSError, RuntimeError) as error:  # a name too long, a home of nobody's
        raise UserError(f"{key}={path} cannot be opened: {error}") from None
    if not files:
        raise UserError(f"{key}={path} does not exist")
    for file in files:
        if _suffix(file) not in SUFFIXES:
            raise UserError(f"{file} is no table that can be read ({', '.join(SUFFIXES)}, also .gz): {_WAY_OUT}")
    return files


def column_names(path: Path, form: TableFormat) -> list[str]:
    """The columns of a file, from its first row. Raises UserError for a file without one."""
    with _reading(path) as file:
        if _suffix(path) in _TABLES:
            return _header(path, file, form)[1]
        return list(next(_json_rows(path, file), {}))


def read_rows(path: Path, columns: list[str], form: TableFormat) -> Iterator[Row]:
    """The cells of these columns, row by row.

    Raises:
        UserError: naming the line of what cannot be read, and the columns that there are where one is missing.
    """
    with _reading(path) as file:
        if _suffix(path) in _TABLES:
            yield from _table_rows(path, file, columns, form)
            return
        for line, row in enumerate(_json_rows(path, file), start=1):
            for column in columns:
                if column not in row:
                    raise UserError(f"{path}: row {line} has no {column!r}, but {_names(list(row))}")
            yield {column: row[column] for column in columns}


def check_columns(path: Path, columns: dict[str, str], form: TableFormat) -> None:
    """Refuse a file that lacks a column: only its first row is read.

    Args:
        columns: the task's name for a column → the file's.
    """
    there = column_names(path, form)
    for name, column in columns.items():
        if column not in there:
            raise UserError(
                f"data.columns.{name}={column}: {path} has no such column, but {_names(there)}; write "
                f"data.columns.{name}=NAME"
            )


def _names(columns: list[str]) -> str:
    return ", ".join(map(repr, columns)) if columns else "nothing"


def _suffix(path: Path) -> str:
    path = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return path.suffix.lower()


@contextmanager
def _reading(path: Path) -> Iterator[io.TextIOBase]:
    """A file as UTF-8 text, .gz unpacked; what goes wrong in the block is a UserError that names the file."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as content:
            yield io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} (byte 0x{error.object[error.start]:02x})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _reader(lines: Iterator[str], delimiter: str, form: TableFormat) -> Any:
    csv.field_size_limit(_LONGEST_CELL)
    if form.quotes:
        return csv.reader(lines, delimiter=delimiter, strict=True)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)


def _header(path: Path, file: io.TextIOBase, form: TableFormat) -> tuple[str, list[str]]:
    """The delimiter, and the names in the first line."""
    first = file.readline()
    if not first.strip():
        raise UserError(f"{path} has no first line with the names of its columns")
    delimiter = form.delimiter or ("\t" if _suffix(path) == ".tsv" else None)
    found: dict[str, list[str]] = {}
    mistake = ""
    for sign in [delimiter] if delimiter else _DELIMITERS:
        try:
            found[sign] = next(_reader(iter([first]), sign, form))
        except csv.Error as error:  # quotation marks end where another delimiter stands
            mistake = mistake or str(error)
    if not found:
        raise UserError(f"{path}: its first line cannot be read as names of columns: {mistake}")
    delimiter = max(found, key=lambda sign: len(found[sign]))
    names = [name.strip() for name in found[delimiter]]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} has more than one column named {twice[0]!r}")
    return delimiter, names


def _table_rows(path: Path, file: io.TextIOBase, columns: list[str], form: TableFormat) -> Iterator[Row]:
    delimiter, names = _header(path, file, form)
    for column in columns:
        if column not in names:
            raise UserError(f"{path} has no column {column!r}, but {_names(names)}")
    places = {column: names.index(column) for column in columns}
    reader = _reader(iter(file), delimiter, form)
    try:
        for cells in reader:
            if not cells:  # an empty line
                continue
            if len(cells) != len(names):
                raise UserError(
                    f"{path}: line {reader.line_num + 1} has {len(cells)} cells, and its first line names {len(names)} "
                    f"columns; a cell that holds the delimiter {delimiter!r} stands in quotation marks"
                )
            yield {column: cells[place] for column, place in places.items()}
    except csv.Error as error:
        raise UserError(
            f"{path}: line {reader.line_num + 1} cannot be read: {error}; where quotation marks are characters like "
            "any other: data.quotes=false"
        ) from None


def _json_rows(path: Path, file: io.TextIOBase) -> Iterator[Row]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}: line {line} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f'{path}: line {line} must be a JSON object, {{"text": …}}, not {text.strip()[:40]}')
        yield row
