"""Sentences as the shared tasks of CoNLL have them: one token a line, columns between white space, a blank line behind
each sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from losslab.data.opened import lines_of, open_text
from losslab.data.table_format import Format, Row, Skipped, TableFormat
from losslab.errors import UserError

_DOCUMENT = "-DOCSTART-"
_SPACE = re.compile(r"[ \t]+")
_MARKS = "marks of documents"


def names(path: Path, form: TableFormat) -> list[str]:
    """`words`, the first column of the file; `tags`, the last one; `column_2`, … those between them."""
    width = next((len(found[0]) for _, found in _sentences(path, form, Skipped())), 0)
    if width < 2:
        raise UserError(f"{path} has no line with a word and its tag, with white space between them")
    return ["words", *(f"column_{i}" for i in range(2, width)), "tags"]


def rows(path: Path, columns: list[str], form: TableFormat, skipped: Skipped) -> Iterator[tuple[str, Row]]:
    """A row for each sentence, whose cells are lists, one item a token. Its place is the line of its first token."""
    known = names(path, form)
    places = {column: known.index(column) for column in columns}
    for line, tokens in _sentences(path, form, skipped):
        for i, cells in enumerate(tokens):
            if len(cells) != len(known):
                raise UserError(
                    f"{path}: line {line + i} has {len(cells)} columns, and the first token has {len(known)}: "
                    f"{' '.join(cells)!r}; each token has a line and each column a value"
                )
        yield f"line {line}", {column: [cells[place] for cells in tokens] for column, place in places.items()}


def _sentences(path: Path, form: TableFormat, skipped: Skipped) -> Iterator[tuple[int, list[list[str]]]]:
    """The line of the first token of each sentence, and the cells of its tokens."""
    tokens: list[list[str]] = []
    begin = 1
    with open_text(path, form.encoding) as file:
        for number, line in enumerate(lines_of(path, file), start=1):
            text = line.strip(" \t\r\n")
            if text and not text.startswith(_DOCUMENT):
                begin = begin if tokens else number
                tokens.append(_SPACE.split(text))
                continue
            skipped[_MARKS] += bool(text)
            if tokens:
                yield begin, tokens
                tokens = []
    if tokens:
        yield begin, tokens


CONLL = Format((".conll", ".txt", ".bio", ".iob", ".iob2"), names, rows)
