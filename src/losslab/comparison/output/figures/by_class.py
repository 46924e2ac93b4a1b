"""Each class's difference in F1 to the baseline, with intervals: on which classes a loss wins or loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from losslab.comparison.output.figures.layout import (
    LINE,
    WIDTH,
    Entry,
    finish,
    finite,
    new_figure,
    say_nothing_to_draw,
    short,
    widest,
    wrap,
)
from losslab.comparison.output.figures.style import FONT, INK, SMALL, Look, styled

_NAMES = 2.2
"""Inches at most, of the names of classes."""
_ROW, _OF_LOSS, _AROUND = 0.14, 0.105, 0.75
"""Inches of a row without its losses, of each of these, and above and below the rows."""


@dataclass(frozen=True)
class ClassDifferences:
    """One loss."""

    label: str
    mean: NDArray[np.float64]
    """[C]."""
    low: NDArray[np.float64]
    """[C]; NaN with one seed."""
    high: NDArray[np.float64]


@styled()
def draw_class_differences(
    items: Sequence[ClassDifferences], looks: dict[str, Look], *, names: Sequence[str], baseline: str, metric: str
) -> Figure:
    """A row for each class, in which the losses stand below one another: mean and simultaneous interval.

    Args:
        names: of the classes, from the top row to the bottom one.
    """
    told = [wrap(name, _NAMES, SMALL) for name in names]
    height = max(_ROW + _OF_LOSS * len(items), SMALL * LINE * max((name.count("\n") + 1 for name in told), default=1))
    limit = _limit(items)
    marks = [Line2D([], [], color=looks[i.label].colour, marker=looks[i.label].marker, linewidth=1.4) for i in items]
    legend = [Entry(mark, item.label) for mark, item in zip(marks, items, strict=True)]
    if any((np.abs(finite(end)) > limit).any() for item in items for end in (item.mean, item.low, item.high)):
        beyond = Line2D([], [], color=INK, linestyle="none", marker=">", markersize=6)
        legend.append(Entry(beyond, "beyond the axis"))
    losses = ", ".join(item.label for item in items)
    title = f"difference to {baseline} in {metric} of each class: {losses}"
    x_label = wrap(f"difference to {baseline} in {metric}", WIDTH - widest(told, SMALL) - 0.6)
    around = _AROUND + FONT * LINE * x_label.count("\n")
    figure = new_figure(height * max(len(names), 1) + around, legend, title=title)
    axes = figure.add_subplot()
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-limit, limit)
    axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    for row in range(1, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=INK, alpha=0.04, linewidth=0, zorder=0)
    if not any(np.isfinite(finite(item.mean)).any() for item in items):
        say_nothing_to_draw(axes)
    for i, item in enumerate(items):
        look = looks[item.label]
        y = np.arange(len(names)) + 0.7 * ((i + 0.5) / len(items) - 0.5)
        mean, low, high = finite([item.mean, item.low, item.high])
        known = np.isfinite(low) & np.isfinite(high)
        ends = np.clip([low[known], high[known]], -limit, limit)
        axes.hlines(y[known], *ends, color=look.colour, linewidth=1.4, zorder=2)
        inside = np.abs(mean) <= limit
        axes.plot(mean[inside], y[inside], linestyle="none", color=look.colour, marker=look.marker, markersize=4.5)
        for marker, edge, far in (
            ("<", -limit, np.fmin(mean, low) < -limit),
            (">", limit, np.fmax(mean, high) > limit),
        ):
            if far.any():  # matplotlib would keep room for none of them at the figure's corner
                at = np.full(int(far.sum()), edge)
                axes.plot(at, y[far], linestyle="none", color=look.colour, marker=marker, markersize=5, clip_on=False)
    axes.set_yticks(np.arange(len(names)), labels=told)
    axes.tick_params(axis="y", length=0, pad=9)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel(x_label)
    for text, shift, side in (("← worse", -5, "right"), ("better →", 5, "left")):
        axes.annotate(
            text,
            (0, 1),
            xycoords=("data", "axes fraction"),
            xytext=(shift, 4),
            textcoords="offset points",
            ha=side,
            fontsize=SMALL,
        )
    return finish(figure)


def _limit(items: Sequence[ClassDifferences]) -> float:
    """Extent of the axis: no difference of two shares is above 1, and means are what it is for."""
    means = [float(extent) for item in items for extent in np.abs(finite(item.mean)) if np.isfinite(extent)]
    ends = [float(x) for item in items for x in np.abs(finite([item.low, item.high])).ravel() if np.isfinite(x)]
    largest = max(means, default=0.0)
    typical = sorted(ends)[len(ends) // 2] if ends else 0.0
    return min(1.05, 1.15 * max(largest, typical)) or 1.0
