"""Files of csv and tsv, by the standard library. Every cell is text."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from losslab.data.opened import PACKED, lines_of, open_text
from losslab.data.table_format import Format, Row, Skipped, TableFormat
from losslab.errors import UserError

_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_CELL = 2**31 - 1


def names(path: Path, form: TableFormat) -> list[str]:
    """The columns, from the first line or the header."""
    with open_text(path, form.encoding) as file:
        return _header(path, next(lines_of(path, file), ""), form)[1]


def rows(path: Path, columns: list[str], form: TableFormat, skipped: Skipped) -> Iterator[tuple[str, Row]]:
    """The rows; the line of each is that on which it begins, whatever line breaks quoted cells before it hold."""
    with open_text(path, form.encoding) as file:
        lines = lines_of(path, file)
        first = next(lines, "")
        delimiter, header = _header(path, first, form)
        before = 1
        if form.header is not None:  # the first line is a row
            lines, before = _again(first, lines), 0
        places = {column: header.index(column) for column in columns}
        reader = _reader(lines, delimiter, form)
        begin = before + 1
        try:
            for cells in reader:
                if not cells:
                    skipped["blank lines"] += 1
                elif len(cells) != len(header):
                    raise _other_width(path, begin, cells, header, delimiter)
                else:
                    yield f"line {begin}", {column: cells[place] for column, place in places.items()}
                begin = before + reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{path}: line {begin} cannot be read: {error}; where quotation marks are characters like any other: "
                "data.quotes=false"
            ) from None


def _again(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _other_width(path: Path, line: int, cells: list[str], header: list[str], delimiter: str) -> UserError:
    there = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    cure = (
        f"a cell that holds the delimiter {delimiter!r} stands in quotation marks"
        if len(cells) > len(header)
        else "an empty cell keeps its delimiter"
    )
    return UserError(f"{path}: line {line} has {there}, and the table has {len(header)} columns; {cure}")


def _reader(lines: Iterator[str], delimiter: str, form: TableFormat) -> Any:
    csv.field_size_limit(_LONGEST_CELL)
    if form.quotes:
        return csv.reader(lines, delimiter=delimiter, strict=True)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)


def _header(path: Path, first: str, form: TableFormat) -> tuple[str, list[str]]:
    """The delimiter, and the names of the columns."""
    if not first.strip():
        raise UserError(f"{path} has no first line with the names of its columns")
    delimiter = form.delimiter or ("\t" if _is_tsv(path, form) else None)
    found: dict[str, list[str]] = {}
    mistake = ""
    for sign in [delimiter] if delimiter else _DELIMITERS:
        try:
            found[sign] = next(_reader(iter([first]), sign, form))
        except csv.Error as error:  # quotation marks end where another delimiter stands
            mistake = mistake or str(error)
    if not found and (form.header is None or delimiter is None):
        raise UserError(f"{path}: line 1 cannot be read as names of columns: {mistake}")
    delimiter = delimiter or max(found, key=lambda sign: len(found[sign]))
    if form.header is not None:
        return delimiter, list(form.header)
    header = [name.strip() for name in found[delimiter]]
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise UserError(
            f"{path} has more than one column named {twice[0]!r}: name each once in its first line; for a file without "
            "names: data.header=[NAME,…]"
        )
    return delimiter, header


def _is_tsv(path: Path, form: TableFormat) -> bool:
    inner = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return form.name == "tsv" or (form.name is None and inner.suffix.lower() == ".tsv")


CSV = Format((".csv",), names, rows)
TSV = Format((".tsv",), names, rows)
