"""Figure of the tokens on which a loss wins and loses: frequent or rare ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from losslab.comparison.output.figures.layout import (
    Entry,
    finish,
    finite,
    new_figure,
    reach,
    say_nothing_to_draw,
    wrap,
)
from losslab.comparison.output.figures.style import INK, Look, styled

_GROUPS = 5
_DIFFERENCES, _ABSOLUTE, _NAMES = 2.7, 1.3, 0.8
"""Inches of the differences' panel, of the baseline's own, and of the names below them."""
_SPREAD = 0.76
"""The share of the distance between two groups in which the losses stand side by side."""


@dataclass(frozen=True)
class ByFrequency:
    """One loss: its difference to the baseline; the baseline itself: its own values."""

    label: str
    mean: NDArray[np.float64]
    """[5], the most frequent tokens first; NaN for an empty group."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@styled()
def draw_frequency(items: Sequence[ByFrequency], looks: dict[str, Look], *, metric: str, baseline: str) -> Figure:
    """Difference to the baseline with its interval, for each fifth of train's text; above it, if the baseline is among
    the items, a panel of its own values. What is far beyond the others is an arrow at the edge."""
    own = [item for item in items if item.label == baseline]
    others = [item for item in items if item.label != baseline]
    limit = _limit(others)
    legend = [Entry(_mark_of(looks[item.label]), _label(item, limit)) for item in others]
    legend = [Entry(_mark_of(looks[item.label]), f"{item.label} (baseline)") for item in own] + legend
    names = ", ".join(item.label for item in items)
    panels = [panel for panel in (own, others) if panel] or [others]
    heights = [_DIFFERENCES if panel is others else _ABSOLUTE for panel in panels]
    figure = new_figure(
        sum(heights) + _NAMES, legend, title=f"{metric} by the frequency of tokens, against {baseline}: {names}"
    )
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(grid[i])
        differences = panel is others
        _draw(axes, panel, looks, limit if differences else None)
        if differences:
            axes.axhline(0, color=INK, linewidth=1.0, zorder=1)
        label = f"difference to {baseline} in {metric}" if differences else metric
        axes.set_ylabel(wrap(label, heights[i]))
        _name_groups(axes, last=i == len(panels) - 1)
    return finish(figure)


def _mark_of(look: Look) -> Line2D:
    return Line2D([], [], color=look.colour, linestyle="none", marker=look.marker, markersize=6)


def _limit(items: Sequence[ByFrequency]) -> float:
    """Extent of the axis, for means and intervals."""
    extents = [np.abs(finite([item.mean, item.low, item.high])) for item in items]
    return reach([float(np.nanmax(values)) for values in extents if np.isfinite(values).any()])


def _label(item: ByFrequency, limit: float) -> str:
    values = finite(item.mean)
    known = values[np.isfinite(values)]
    if not len(known):
        return f"{item.label}, no finite values"
    far = known[np.abs(known) > limit]
    if not len(far):
        return item.label
    least, most = far.min(), far.max()
    numbers = f"{least:+.3g}" if least == most else f"{least:+.3g} to {most:+.3g}"
    return f"{item.label}, beyond the axis: {numbers}".replace(": -", ": −").replace("to -", "to −")


def _draw(axes: Axes, items: Sequence[ByFrequency], looks: dict[str, Look], limit: float | None) -> None:
    values = [finite([item.mean, item.low, item.high]) for item in items]
    if not any(np.isfinite(own[0]).any() for own in values):
        say_nothing_to_draw(axes)
        return
    if limit is not None:
        inside = np.concatenate([own[np.abs(own) <= limit] for own in values] + [np.zeros(1)])
        edge = 0.08 * (float(np.ptp(inside)) or 1.0)
        axes.set_ylim(inside.min() - edge, inside.max() + edge)
    bottom, top = axes.get_ylim() if limit is not None else (-np.inf, np.inf)
    for i, (item, (mean, low, high)) in enumerate(zip(items, values, strict=True)):
        look = looks[item.label]
        shift = _SPREAD * ((i + 0.5) / len(items) - 0.5)
        x = np.arange(len(mean)) + shift
        known = np.isfinite(low) & np.isfinite(high)
        axes.vlines(
            x[known],
            np.clip(low[known], bottom, top),
            np.clip(high[known], bottom, top),
            color=look.colour,
            linewidth=1.4,
            zorder=2,
        )
        for marker, where in ((look.marker, (mean >= bottom) & (mean <= top)), ("^", mean > top), ("v", mean < bottom)):
            if not where.any():
                continue  # matplotlib would keep room for it at the figure's corner
            size = 4.5 if marker == look.marker else 6.0
            y = np.clip(mean[where], bottom, top)
            axes.plot(x[where], y, linestyle="none", color=look.colour, marker=marker, markersize=size, clip_on=False)


def _name_groups(axes: Axes, *, last: bool) -> None:
    axes.set_xlim(-0.5, _GROUPS - 0.5)
    for k in range(1, _GROUPS, 2):
        axes.axvspan(k - 0.5, k + 0.5, color=INK, alpha=0.04, linewidth=0, zorder=0)
    axes.grid(visible=False, axis="x")
    names = ["1\nmost frequent\ntokens", *map(str, range(2, _GROUPS)), f"{_GROUPS}\nrarest\ntokens"]
    axes.set_xticks(range(_GROUPS), labels=names if last else [""] * _GROUPS)
    axes.tick_params(axis="x", length=0)
    if last:
        axes.set_xlabel("fifths of train's text, by how frequent their tokens are")
