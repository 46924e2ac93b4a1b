"""A table of results that was made elsewhere, read as runs. No torch."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from losslab.comparison.runs.run import Run
from losslab.comparison.runs.seed import Seed
from losslab.errors import UserError
from losslab.records import Record

FINAL = "final/"
"""Begins the names of the columns that are of the last step."""


def read_table(path: Path) -> list[Run]:
    """Lines of loss, seed and metrics. A column with a dot in its name, such as optimizer.lr, is a setting; `status`
    may say completed, failed or diverged. `final/test/top1` is test/top1 after the last step (`Run.weights`)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or []
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from None
    missing = [name for name in ("loss", "seed") if name not in columns]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}: a table needs loss, seed, and one column a metric")
    settings = [name for name in columns if "." in name]
    # Without a name: the numbers of the lines, which pandas writes.
    metrics = [name for name in columns if name and name not in ("loss", "seed", "status", *settings)]
    if not lines or not metrics:
        raise UserError(f"{path} holds no {'results' if metrics else 'column of a metric beside loss and seed'}")
    runs = []
    known: dict[tuple[Any, ...], int] = {}
    for number, line in enumerate(lines, start=2):
        loss, seed = (" ".join((line[name] or "").split()) for name in ("loss", "seed"))
        if not loss or not seed.isdecimal() or None in line:
            raise UserError(f"{path}, line {number}: needs a loss, a seed (a whole number), and a cell a column")
        values: dict[str, float] = {}
        for name in metrics:
            if (cell := (line[name] or "").strip()) and (value := number_in(cell)) is None:
                raise UserError(f"{path}, line {number}: {cell!r} is no number for {name!r}")
            elif cell and value is not None and math.isfinite(value):
                values[name] = value
        status = (line.get("status") or "").strip() or "completed"
        if status not in ("completed", "failed", "diverged", "interrupted", "running", "planned", "pruned"):
            raise UserError(f"{path}, line {number}: {status!r} is no status; completed, failed or diverged, say")
        record = Record(identity="", name=f"line {number}", status=status, metrics=_by_weights(values))
        own = {name: _cell(line[name]) for name in settings}
        key = (loss, int(seed), *own.values())
        if key in known:
            raise UserError(
                f"{path}, line {number}: it repeats the loss and seed of line {known[key]}; a setting's column needs "
                "a dot in its name, such as optimizer.lr"
            )
        known[key] = number
        runs.append(Run(None, record, loss, Seed(int(seed)), own, plain=True))
    return runs


def _by_weights(values: dict[str, float]) -> dict[str, dict[str, float]]:
    """Metrics as in a record: those of columns `final/…`, as `columns.load` names them, are of the last step."""
    final = {name.removeprefix(FINAL): value for name, value in values.items() if name.startswith(FINAL)}
    return {"final": final, "best": {name: value for name, value in values.items() if not name.startswith(FINAL)}}


def _cell(text: str | None) -> Any:
    value = number_in(text or "")
    if value is None:
        return text or None
    return value if math.isfinite(value) else None


def number_in(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
