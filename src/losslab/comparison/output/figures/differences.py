"""Each loss's difference to the baseline, with its interval and its verdict: a forest plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from losslab.comparison.output.figures.layout import (
    LINE,
    WIDTH,
    Entry,
    finish,
    finite,
    new_figure,
    reach,
    short,
    widest,
    width_of,
    wrap,
)
from losslab.comparison.output.figures.style import FONT, INK, SMALL, Look, styled
from losslab.comparison.simultaneous import LEVEL
from losslab.numbers import true_to

_LABELS, _NOTES = 1.9, 1.95
"""Inches at most, of the columns beside the panel."""
_BETWEEN = 0.17
_AROUND = 0.85
"""Inches above and below the rows: the words on top, ticks and the label of the axis."""
_SIDE = 1 / 3
"""The shorter side of zero has at least so much of the longer one, for the words above it."""
_DIGITS = 6
"""Decimals at most."""


@dataclass(frozen=True)
class Difference:
    """A row."""

    label: str
    mean: float
    low: float
    """The interval; NaN with one seed."""
    high: float
    points: NDArray[np.float64]
    """[seeds]."""
    note: str
    """The verdict."""


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    decimals: int
    """Decimals of the numbers beside the rows."""

    def arrow(self, value: float) -> str:
        """The marker of a value beyond the axis; empty for one on it."""
        return ">" if value > self.high else "<" if value < self.low else ""


@styled()
def draw_differences(
    items: Sequence[Difference],
    looks: dict[str, Look],
    *,
    metric: str,
    baseline: str,
    margin: float | None,
    higher_is_better: bool,
    intervals: str = "simultaneous",
) -> Figure:
    """A row for each loss: label, interval on a common axis, verdict and numbers. Rows that are many times larger than
    the others leave the axis as an arrow, so that the others stay readable.

    Args:
        margin: of equivalence, in units of the metric; drawn as a band.
        intervals: what kind the bars are, for the legend.
    """
    scale = _scale(items, margin)
    labels = [wrap(item.label, _LABELS) for item in items]
    notes = [f"{wrap(item.note, _NOTES, SMALL)}\n{_numbers(item, scale, margin)}" for item in items]
    heights = [
        max(FONT * LINE * (label.count("\n") + 1), SMALL * LINE * (note.count("\n") + 1)) + _BETWEEN
        for label, note in zip(labels, notes, strict=True)
    ]
    ends = np.cumsum(heights)
    centres = ends - np.asarray(heights) / 2
    total = float(ends[-1]) if len(items) else 1.0
    names = ", ".join(f"{item.label}: {item.note}" for item in items)
    title = f"difference to {baseline} in {metric}; {names}"
    panel = WIDTH - widest(labels) - widest(notes, SMALL) - 0.5
    x_label = wrap(f"difference to {baseline} in {metric}", panel + 0.6)
    around = _AROUND + FONT * LINE * x_label.count("\n")
    figure = new_figure(total + around, _legend(items, scale, margin, intervals), title=title)
    axes = figure.add_subplot()
    axes.set_ylim(total, 0)
    axes.set_xlim(scale.low, scale.high)
    axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    if margin:
        axes.axvspan(max(-margin, scale.low), min(margin, scale.high), color=INK, alpha=0.08, linewidth=0, zorder=0)
    for item, centre in zip(items, centres, strict=True):
        _draw_row(axes, item, looks[item.label], scale, float(centre))
    axes.set_yticks(centres, labels=labels)
    axes.tick_params(axis="y", length=0, labelsize=FONT)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    for note, centre in zip(notes, centres, strict=True):
        axes.annotate(
            note,
            (1, float(centre)),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    _name_sides(axes, higher_is_better=higher_is_better)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.locator_params(axis="x", nbins=max(2, int(panel / 0.65)))
    axes.set_xlabel(x_label)
    return finish(figure)


def _scale(items: Sequence[Difference], margin: float | None) -> _Scale:
    ends = [finite([item.mean, item.low, item.high, *item.points]) for item in items]
    extents = [float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else math.nan for values in ends]
    halves = sorted(half for item in items if math.isfinite(half := (item.high - item.low) / 2))
    noise = halves[len(halves) // 2] if halves else 0.0
    limit = reach(extents, floor=max(noise, margin or 0.0))
    on_axis = [values[np.abs(values) <= limit] for values in ends]
    values = np.concatenate([*on_axis, [0.0]])
    if margin and margin <= 4 * limit:  # a wider one would leave nothing to see but itself
        values = np.append(values, [-margin, margin])
    low, high = float(values.min()), float(values.max())
    low, high = min(low, -_SIDE * high), max(high, -_SIDE * low)
    size = max(-low, high)
    if size == 0.0:
        return _Scale(-1.0, 1.0, 1)
    return _Scale(1.08 * low, 1.08 * high, min(_DIGITS, max(0, 2 - math.floor(math.log10(size)))))


def _numbers(item: Difference, scale: _Scale, margin: float | None) -> str:
    if not math.isfinite(item.mean):
        return "no finite value"
    text = f"{item.mean:+.{scale.decimals}f}"
    if math.isfinite(item.low) and math.isfinite(item.high):
        marks = [0.0, margin, -margin] if margin else [0.0]
        interval = f"[{', '.join(true_to([item.low, item.high], marks, sign=True, decimals=scale.decimals))}]"
        between = " " if width_of(f"{text} {interval}", SMALL) <= _NOTES else "\n"
        text += between + interval
    return text.replace("-", "−")


def _draw_row(axes: Axes, item: Difference, look: Look, scale: _Scale, y: float) -> None:
    for value in finite(item.points):
        if math.isfinite(value):
            at = float(np.clip(value, scale.low, scale.high))
            axes.plot(
                at,
                y + 0.09,
                marker=scale.arrow(value) or "o",
                markersize=3.2,
                markerfacecolor="none",
                markeredgecolor=look.colour,
                markeredgewidth=0.8,
                alpha=0.75,
                clip_on=False,
                zorder=2,
            )
    if math.isfinite(item.low) and math.isfinite(item.high):
        low, high = (float(np.clip(end, scale.low, scale.high)) for end in (item.low, item.high))
        axes.plot([low, high], [y, y], color=look.colour, linewidth=2.0, solid_capstyle="butt", zorder=3)
        for end, at in ((item.low, low), (item.high, high)):
            axes.plot(at, y, marker=scale.arrow(end) or "|", color=look.colour, markersize=6, clip_on=False, zorder=3)
    if math.isfinite(item.mean):
        at = float(np.clip(item.mean, scale.low, scale.high))
        beyond = scale.arrow(item.mean)
        size = 8.0 if beyond else 6.5
        axes.plot(at, y, marker=beyond or look.marker, color=look.colour, markersize=size, clip_on=False, zorder=4)


def _name_sides(axes: Axes, *, higher_is_better: bool) -> None:
    left, right = ("← worse", "better →") if higher_is_better else ("← better", "worse →")
    for text, shift, side in ((left, -5, "right"), (right, 5, "left")):
        axes.annotate(
            text,
            (0, 1),
            xycoords=("data", "axes fraction"),
            xytext=(shift, 4),
            textcoords="offset points",
            ha=side,
            fontsize=SMALL,
        )


def _legend(items: Sequence[Difference], scale: _Scale, margin: float | None, intervals: str) -> list[Entry]:
    entries = []
    if any(math.isfinite(item.low) for item in items):
        mean = Line2D([], [], color=INK, marker="o", markersize=6, linewidth=2)
        entries.append(Entry(mean, f"mean and {intervals} {1 - LEVEL:.0%} interval"))
    if any(len(item.points) for item in items):
        seed = Line2D([], [], color=INK, linestyle="none", marker="o", markersize=3.2, markerfacecolor="none")
        entries.append(Entry(seed, "one seed"))
    if margin:
        entries.append(Entry(Patch(color=INK, alpha=0.12), f"margin: within ±{margin:g} of the baseline"))
    every = [value for item in items for value in (item.mean, item.low, item.high, *item.points)]
    if any(scale.arrow(value) for value in every if math.isfinite(value)):
        beyond = Line2D([], [], color=INK, linestyle="none", marker=">", markersize=7)
        entries.append(Entry(beyond, "beyond the axis"))
    return entries
