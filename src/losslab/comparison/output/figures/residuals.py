"""Residuals by the target's value: whether a loss predicts large and small targets too near to the middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from losslab.comparison.output.figures.layout import HEIGHT, Entry, finish, finite, line_of, new_figure, wrap
from losslab.comparison.output.figures.style import INK, Look, styled
from losslab.comparison.residuals import Residuals

_SPREAD = 0.5
"""The share of the shortest distance between two groups in which the losses stand side by side."""


@styled()
def draw_residuals(items: Sequence[Residuals], looks: dict[str, Look], *, unit: str) -> Figure:
    """A line of medians for each loss, with bars from the 10% to the 90% quantile."""
    legend = [Entry(line_of(looks[item.label]), item.label) for item in items]
    title = f"predicted less true value, by the true value: {', '.join(item.label for item in items)}"
    figure = new_figure(HEIGHT, legend, title=title)
    axes = figure.add_subplot()
    axes.axhline(0, color=INK, linewidth=1.0, zorder=1)
    gaps = [gap for item in items for gap in np.diff(item.target)]
    width = _SPREAD * min(gaps) if gaps else 0.0
    for i, item in enumerate(items):
        look = looks[item.label]
        x = item.target + width * ((i + 0.5) / len(items) - 0.5)
        low, middle, high = finite(item.quantiles)
        axes.vlines(x, low, high, color=look.colour, linewidth=1.2, alpha=0.7, zorder=2)
        axes.plot(x, middle, color=look.colour, linestyle=look.dash, marker=look.marker, markersize=4.5, zorder=3)
    told = f" ({unit})" if unit else ""
    axes.set_xlabel(f"true value{told}, tenths of test")
    axes.set_ylabel(wrap(f"predicted less true{told}", HEIGHT - 1))
    return finish(figure)
