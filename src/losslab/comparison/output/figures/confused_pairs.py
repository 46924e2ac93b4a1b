"""The pairs of classes that are taken for one another most often, where classes are too many for a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from losslab.comparison.output.figures.confusion import Matrix
from losslab.comparison.output.figures.layout import LINE, Entry, finish, new_figure, wrap
from losslab.comparison.output.figures.style import INK, SMALL, Look, styled

_NAMES = 3.4
"""Inches at most, of the names of a pair."""
_BETWEEN, _AROUND = 0.1, 0.6


@styled()
def draw_confused_pairs(
    items: Sequence[Matrix], looks: dict[str, Look], *, names: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> Figure:
    """A row for each pair of a true and a predicted class, and a mark for each loss: the share of the true class.

    Args:
        names: of all classes.
        pairs: true and predicted class of each row.
    """
    told = [wrap(f"{names[true]} → {names[predicted]}", _NAMES, SMALL) for true, predicted in pairs]
    heights = [SMALL * LINE * (text.count("\n") + 1) + _BETWEEN for text in told]
    ends = np.cumsum(heights)
    centres = ends - np.asarray(heights) / 2
    legend = [
        Entry(Line2D([], [], color=looks[i.label].colour, marker=looks[i.label].marker, linestyle="none"), i.label)
        for i in items
    ]
    title = f"most confused classes, by the share of the true class: {', '.join(i.label for i in items)}"
    figure = new_figure(float(ends[-1]) + _AROUND, legend, title=title)
    axes = figure.add_subplot()
    axes.set_ylim(float(ends[-1]), 0)
    for item in items:
        look = looks[item.label]
        shares = [item.shares[pair] for pair in pairs]
        axes.plot(shares, centres, linestyle="none", color=look.colour, marker=look.marker, clip_on=False, zorder=3)
    for centre in centres:
        axes.axhline(centre, color=INK, linewidth=0.6, alpha=0.15, zorder=0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_yticks(centres, labels=told)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the true class (left) that is taken for the other (right)")
    return finish(figure)
