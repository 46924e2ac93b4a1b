"""Cells as the kinds of their columns want them: text stays text until here."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from losslab.contracts import ColumnKind
from losslab.data.table_format import Row

Columns = Mapping[str, ColumnKind]
FRAMES, TEXT = "frames", "text"
"""The task's names of a column of frames, and of the text that goes with them."""
_SHOWN = 40
"""Characters of a cell in a message."""


def parse_row(cells: Row, columns: Columns) -> Row:
    """Cells as their kinds want them: strings, lists of strings, floats; of frames F and the bytes of float32 [T, F].
    Raises ValueError naming the column."""
    row: Row = {}
    for name, kind in columns.items():
        try:
            row[name] = _PARSERS[kind](cells[name])
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"its {name} must be {_WANTED[kind]}, not {_short(cells[name])}") from None
    words = next((name for name, kind in columns.items() if kind == "words"), "")
    for tags in (name for name, kind in columns.items() if kind == "tags"):
        if len(row[words]) != len(row[tags]):
            raise ValueError(f"it has {len(row[words])} {words} and {len(row[tags])} {tags}: each word has one")
    return row


def _text(cell: Any) -> str:
    if not isinstance(cell, str):
        raise TypeError
    cell.encode()  # half a surrogate pair, which JSON can write, is no text
    return cell


def _label(cell: Any) -> str:
    """Numbers and truth values of JSON as they are written there."""
    if isinstance(cell, str) and cell.strip():
        return _text(cell).strip()
    if isinstance(cell, int):
        return json.dumps(cell)
    raise TypeError


def _value(cell: Any) -> float:
    if isinstance(cell, bool) or not math.isfinite(number := float(cell)):
        raise ValueError
    return number


def _items(item: Callable[[Any], Any], *, fewest: int = 1) -> Callable[[Any], list[Any]]:
    def parse(cell: Any) -> list[Any]:
        found = cell.split() if isinstance(cell, str) else cell
        if not isinstance(found, list) or len(found) < fewest:
            raise TypeError
        return [item(part) for part in found]

    return parse


def _labels(cell: Any) -> list[str]:
    """Each label once, however often it is said: it holds or it does not."""
    return list(dict.fromkeys(_items(_label, fewest=0)(cell)))


def characters_of(text: str) -> list[str]:
    """The characters of a text: accents joined to their letters (NFC), one space for white space between words, none at
    the ends."""
    return list(" ".join(unicodedata.normalize("NFC", text).split()))


def _characters(cell: Any) -> list[str]:
    if not (found := characters_of(_text(cell))):
        raise ValueError
    return found


def _frames(cell: Any) -> tuple[int, bytes]:
    array = np.asarray(cell)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise TypeError
    frames = array.astype("<f4")
    if not np.isfinite(frames).all():
        raise ValueError
    return frames.shape[1], frames.tobytes()


_PARSERS: dict[ColumnKind, Callable[[Any], Any]] = {
    "text": _text,
    "words": _items(_text),
    "label": _label,
    "labels": _labels,
    "tags": _items(_label),
    "value": _value,
    "values": _items(_value),
    "frames": _frames,
    "characters": _characters,
}
_WANTED: dict[ColumnKind, str] = {
    "text": "text",
    "words": "a list of words, at least one",
    "label": "a label (text or a whole number)",
    "labels": "a list of labels",
    "tags": "a list of labels, at least one",
    "value": "a finite number",
    "values": "a list of finite numbers, at least one",
    "frames": "finite numbers [T, F], which data=frames reads out of files",
    "characters": "text of one character or more",
}


def _short(cell: Any) -> str:
    shown = repr(cell)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
