"""Parquet, by pyarrow. Cells have the types of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from losslab.data.opened import needs
from losslab.data.table_format import Format, Row, Skipped, TableFormat
from losslab.errors import UserError

_AT_ONCE = 4096


def names(path: Path, form: TableFormat) -> list[str]:
    """The columns, from the file's description."""
    with _open(path) as file:
        found: list[str] = file.schema_arrow.names
    if twice := [name for i, name in enumerate(found) if name in found[:i]]:
        raise UserError(f"{path} has more than one column named {twice[0]!r}")
    return found


def rows(path: Path, columns: list[str], form: TableFormat, skipped: Skipped) -> Iterator[tuple[str, Row]]:
    """The rows, numbered from 1; a part of the file at a time."""
    number = 0
    with _open(path) as file:
        for batch in file.iter_batches(_AT_ONCE, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise needs("pyarrow", "parquet", f"{path} is a parquet file, which") from None
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from None


PARQUET = Format((".parquet", ".pq"), names, rows)
