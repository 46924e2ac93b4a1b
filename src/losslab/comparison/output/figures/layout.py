"""Layout of figures: text is measured before it is drawn, so that nothing overlaps and nothing is cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from losslab.comparison.output.figures.style import FONT, INK, SMALL, Look

T = TypeVar("T")
WIDTH = 7.0
"""Inches, of every figure."""
HEIGHT = 3.8
"""Inches of one panel with its labels."""
PANEL_WIDTH, PANEL_HEIGHT = 5.9, 3.2
"""Inches of such a panel without them, nearly."""
LINE = 1.3 / 72
"""Inches of a line of text for each point of its font."""
FAR = 5.0
"""A value this many times farther out than the typical one would flatten all others; it leaves the axis."""
NEGLIGIBLE = 1e-4
"""A share of the largest value: smaller differences are rounding (two losses that are one), and no reason to zoom
in."""
_SIDE = 0.12
_HANDLE, _GAP, _COLUMN, _SPACE = 2.8, 0.7, 1.8, 0.4
"""Widths of a legend's line, of the space after it, between columns and between rows; in font sizes."""
_EVEN = 0.05
"""Inches by which the lines of a text may differ from the narrowest column."""


@dataclass(frozen=True)
class Entry:
    """A line of the legend."""

    handle: Artist
    label: str


@lru_cache(maxsize=4096)
def width_of(text: str, size: float = FONT) -> float:
    """Inches of one line."""
    font = FontProperties(family="DejaVu Sans", size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def widest(texts: Iterable[str], size: float = FONT) -> float:
    """Inches of the longest line of all."""
    return max((width_of(line, size) for text in texts for line in text.split("\n")), default=0.0)


def wrap(text: str, width: float, size: float = FONT) -> str:
    """Break `text` into lines of at most `width` inches: at spaces, and inside a word only if it is too long alone.
    The lines are as few as can be, and then as even."""
    lines = _fill(text, width, size)
    wide, narrow = width, width / len(lines) if lines else width
    while wide - narrow > _EVEN:
        middle = (wide + narrow) / 2
        tried = _fill(text, middle, size)
        # A narrower column must not break words that the wide one kept whole.
        if len(tried) == len(lines) and " ".join(tried).split() == " ".join(lines).split():
            lines, wide = tried, middle
        else:
            narrow = middle
    return "\n".join(lines)


def _fill(text: str, width: float, size: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        for piece in _pieces(word, width, size):
            if lines and width_of(f"{lines[-1]} {piece}", size) <= width:
                lines[-1] += f" {piece}"
            else:
                lines.append(piece)
    return lines


def _pieces(word: str, width: float, size: float) -> Iterable[str]:
    if width_of(word, size) <= width:
        yield word
        return
    start = 0
    for end in range(1, len(word) + 1):
        if end - start > 1 and width_of(word[start:end], size) > width:
            yield word[start : end - 1]
            start = end - 1
    yield word[start:]


def new_figure(height: float, legend: Sequence[Entry], *, title: str) -> Figure:
    """A figure with its legend below the axes, which the caller adds.

    Args:
        height: inches for the axes and their labels; the legend's come on top.
        title: what screen readers say.
    """
    em = SMALL / 72
    room = WIDTH - 2 * _SIDE - (_HANDLE + _GAP) * em
    labels = [wrap(entry.label, room, SMALL) for entry in legend]
    columns = next(n for n in range(max(1, len(labels)), 0, -1) if n == 1 or _fits(labels, n))
    order = [place for column in _split(range(len(labels)), columns) for place in column]
    lines = max((sum(label.count("\n") + 1 for label in column) for column in _split(labels, columns)), default=0)
    below = SMALL / 72 * (1.2 * lines + _SPACE * math.ceil(len(labels) / columns)) + 0.15 if labels else 0.0
    figure = Figure(figsize=(WIDTH, height + below), layout="constrained", label=title)
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=_SIDE / 2, h_pad=_SIDE / 2)
    if labels:
        drawn = figure.legend(
            handles=[legend[place].handle for place in order],
            labels=["label"] * len(labels),
            loc="outside lower left",
            ncols=columns,
            handlelength=_HANDLE,
            handletextpad=_GAP,
            columnspacing=_COLUMN,
            labelspacing=_SPACE,
            borderpad=0.3,
        )
        for text, place in zip(drawn.get_texts(), order, strict=True):
            text.set_text(labels[place])  # matplotlib leaves out labels that begin with an underscore
    return figure


def _fits(labels: Sequence[str], columns: int) -> bool:
    """Whether a legend of so many columns is not wider than the figure."""
    widths = [
        max(width_of(line, SMALL) for label in own for line in label.split("\n")) for own in _split(labels, columns)
    ]
    spaces = columns * (_HANDLE + _GAP) + (columns - 1) * _COLUMN
    return sum(widths) + spaces * SMALL / 72 <= WIDTH - 2 * _SIDE


def _split(items: Sequence[T], columns: int) -> list[list[T]]:
    """Columns as long as those of matplotlib's legend, whose rows have the items in their order."""
    return [list(items[first::columns]) for first in range(columns)]


def finish(figure: Figure) -> Figure:
    """Fix where everything stands, so that each format and each drawing is the same picture."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def say_nothing_to_draw(axes: Axes) -> None:
    """Write that there is no finite value, where the marks would be."""
    axes.text(0.5, 0.5, "no finite values", ha="center", va="center", transform=axes.transAxes, color=INK)


def say_what_is_cut(axes: Axes, *, above: bool, below: bool) -> None:
    """Label the right end of an edge that cuts curves off."""
    bottom, top = axes.get_ylim()
    for is_cut, text, y in ((above, f"cut off above {top:.3g}", 1), (below, f"cut off below {bottom:.3g}", 0)):
        if is_cut:
            axes.annotate(
                text.replace("-", "−"),
                (1, y),
                xycoords="axes fraction",
                xytext=(-2, 3 - 6 * y),
                textcoords="offset points",
                ha="right",
                va="top" if y else "bottom",
                fontsize=SMALL,
            )


def line_of(look: Look) -> Line2D:
    """The line that stands for a loss in a legend."""
    return Line2D([], [], color=look.colour, linestyle=look.dash, marker=look.marker)


def finite(values: Any) -> NDArray[np.float64]:
    """Values as float64, ±inf as NaN."""
    found = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def reach(extents: Iterable[float], *, floor: float = 0.0, far: float = FAR) -> float:
    """Extent of an axis that shows everything comparable: the largest extent that is not far out (`far` times the
    median or the floor, whichever is larger); 0 without a finite one."""
    known = sorted(extent for extent in extents if math.isfinite(extent))
    if not known:
        return 0.0
    counting = [extent for extent in known if extent > NEGLIGIBLE * known[-1]] or known
    typical = max(counting[(len(counting) - 1) // 2], floor)
    return max((extent for extent in known if extent <= far * typical), default=known[0])


def short(value: float) -> str:
    """A tick's label: 400, 0.003, 1e-5, 25k, 1.5M."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.6g}{letter}"
    text = f"{value:.6g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−", 1) if value < 0 else text
