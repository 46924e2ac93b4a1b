"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from losslab.data.opened import lines_of, open_text
from losslab.data.table_format import Format, Row, Skipped, TableFormat
from losslab.errors import UserError

_SHOWN = 40


class _Repeated(Exception):
    """An object has a key twice."""


def names(path: Path, form: TableFormat) -> list[str]:
    """The keys of the first object."""
    return next((list(row) for _, row in _objects(path, form, Skipped())), [])


def rows(path: Path, columns: list[str], form: TableFormat, skipped: Skipped) -> Iterator[tuple[str, Row]]:
    """The objects, each of which must have all columns."""
    for line, row in _objects(path, form, skipped):
        for column in columns:
            if column not in row:
                there = ", ".join(map(repr, row)) or "nothing"
                raise UserError(f"{path}: line {line} has no {column!r}, but {there}")
        yield f"line {line}", {column: row[column] for column in columns}


def _objects(path: Path, form: TableFormat, skipped: Skipped) -> Iterator[tuple[int, Row]]:
    with open_text(path, form.encoding) as file:
        for line, text in enumerate(lines_of(path, file), start=1):
            if not text.strip():
                skipped["blank lines"] += 1
                continue
            yield line, parse_line(text, f"{path}: line {line}")


def parse_line(text: str, place: str) -> Row:
    """The object of a line. Raises UserError naming the place."""
    try:
        row = json.loads(text, object_pairs_hook=_once)
    except _Repeated as error:
        raise UserError(f"{place} has the key {error.args[0]!r} twice: leave one out") from None
    except RecursionError:
        raise UserError(f"{place} is nested too deeply to be read") from None
    except ValueError as error:
        told: object = error
        if isinstance(error, json.JSONDecodeError):
            told = f"{error.msg.removesuffix(' at')} at character {error.colno}"
        raise UserError(f'{place} is no JSON: {told}; each line is an object, {{"text": "…"}}') from None
    if not isinstance(row, dict):
        cure = "; a list of objects becomes lines by: jq -c '.[]'" if isinstance(row, list) else ""
        raise UserError(f'{place} must be a JSON object, {{"text": …}}, not {text.strip()[:_SHOWN]}{cure}')
    return row


def _once(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Repeated(next(key for key in keys if keys.count(key) > 1))
    return row


JSON_LINES = Format((".jsonl", ".ndjson"), names, rows)
