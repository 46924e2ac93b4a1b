"""Confusion matrices, a heat map for each loss: true classes in the rows, predicted ones in the columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from losslab.comparison.output.figures.layout import WIDTH, finish, new_figure, widest, width_of
from losslab.comparison.output.figures.style import COLOURS, SMALL, styled

_ABREAST = 3
_DARKEST = 0.6
"""Opacity of a share of 1: numbers stay readable on it, on white as on black."""
_LONGEST_NAME = 1.0
"""Inches."""
_NAME = 0.13
"""Inches of a name's line: as many as a row needs at least."""
_WIDEST = 3.2
"""Inches of a matrix at most."""
_CELL = 0.22
"""Inches of a cell from which on its number has room."""
_ABOVE, _BETWEEN, _AXIS = 0.3, 0.15, 0.4
"""Inches above a matrix, between two, and of the name of an axis."""


@dataclass(frozen=True)
class Matrix:
    """One loss."""

    label: str
    shares: NDArray[np.float64]
    """[C, C]: of each true class (row) the share that is predicted as each (column)."""


@styled()
def draw_confusion(items: Sequence[Matrix], *, names: Sequence[str]) -> Figure:
    """Heat maps side by side. The colour of a cell is its share of the row; a number stands in it where there is room,
    in per cent.

    Args:
        names: of the C classes.
    """
    told = [_short(name) for name in names]
    margin = widest(told, SMALL)
    sides = {n: (WIDTH - margin - _AXIS) / n - _BETWEEN for n in range(min(_ABREAST, len(items)), 0, -1)}
    columns = next((n for n, side in sides.items() if side >= _NAME * len(names)), 1)
    rows = math.ceil(len(items) / columns)
    side = min(sides[columns], _WIDEST)
    height = rows * (side + _ABOVE + margin) + _AXIS
    labels = ", ".join(item.label for item in items)
    figure = new_figure(
        height, [], title=f"confusion matrices, true classes in rows and predicted in columns: {labels}"
    )
    for i, item in enumerate(items):
        axes = figure.add_subplot(rows, columns, i + 1)
        _draw(axes, item, told, side=side, first=i % columns == 0)
    figure.supxlabel("predicted", fontsize=SMALL + 1)
    figure.supylabel("true", fontsize=SMALL + 1)
    return finish(figure)


def _draw(axes: Axes, item: Matrix, names: Sequence[str], *, side: float, first: bool) -> None:
    size = len(names)
    shares = np.nan_to_num(item.shares)
    cells = [Rectangle((j - 0.5, i - 0.5), 1, 1) for i in range(size) for j in range(size)]
    shade = PatchCollection(cells, facecolor=COLOURS[0], linewidth=0, alpha=list(_DARKEST * shares.ravel()))
    axes.add_collection(shade)
    if side / size >= _CELL:
        for i in range(size):
            for j in range(size):
                if shares[i, j] >= 0.005:
                    axes.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=SMALL)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_box_aspect(1)
    axes.grid(visible=False)
    axes.set_title(item.label, loc="left")
    axes.set_xticks(range(size), labels=names, rotation=90)
    axes.set_yticks(range(size), labels=names if first else [""] * size)
    axes.tick_params(length=0)


def _short(name: str) -> str:
    """A name with room beside others."""
    if width_of(name, SMALL) <= _LONGEST_NAME:
        return name
    while len(name) > 1 and width_of(f"{name}…", SMALL) > _LONGEST_NAME:
        name = name[:-1]
    return f"{name}…"
