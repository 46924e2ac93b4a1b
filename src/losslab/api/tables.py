"""Tables for whoever has pandas, and for whoever has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def as_table(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Columns as a pandas DataFrame where pandas is installed, else as a dict of lists."""
    if find_spec("pandas") is None:
        return {name: list(values) for name, values in columns.items()}
    return import_module("pandas").DataFrame(dict(columns))


def as_rows(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows of the same keys as a pandas DataFrame where pandas is installed, else as a list of dicts."""
    if find_spec("pandas") is None:
        return [dict(row) for row in rows]
    return import_module("pandas").DataFrame([dict(row) for row in rows])
