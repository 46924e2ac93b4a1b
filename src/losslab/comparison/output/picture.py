"""A figure of the report: its name, its caption, the data that it shows, and how it is drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    file: str
    """Its name without an ending."""
    section: str
    caption: str
    """The question that it answers, and how to read it."""
    columns: tuple[str, ...]
    data: list[tuple[Any, ...]]
    """The drawn values, as a table."""
    draw: Callable[[], Figure]

    def to_csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if _is_nan(cell) else cell for cell in line] for line in self.data])
        return out.getvalue()


def slug(text: str) -> str:
    return "".join(character if character.isalnum() or character in "._" else "-" for character in text)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)
