"""A metric along one setting: is the loss better, or was its learning rate?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation, Transform, blended_transform_factory
from numpy.typing import NDArray

from losslab.comparison.output.figures.layout import (
    HEIGHT,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    Entry,
    finish,
    finite,
    line_of,
    new_figure,
    reach,
    say_nothing_to_draw,
    say_what_is_cut,
    short,
    width_of,
    wrap,
)
from losslab.comparison.output.figures.style import INK, SMALL, Look, styled

_ROW = 0.14
"""Inches above the panel, for each × at a value."""
_LOG_FROM = 10.0
_ASIDE = 3.0
"""Points between the marks of two losses at one value."""


@dataclass(frozen=True)
class Sensitivity:
    """One loss."""

    label: str
    x: tuple[Any, ...]
    """The values that were tried."""
    mean: NDArray[np.float64]
    """[values], over seeds; NaN where nothing was completed."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    best: int
    """Index of the chosen value; negative for none."""
    missing: tuple[str, ...]
    """The runs that each mean leaves out ("2 diverged"), or nothing."""


@dataclass(frozen=True)
class _Places:
    """Places of the values on the axis."""

    at: dict[float | str, float]
    kind: str
    """log, linear or categories."""


@styled()
def draw_sensitivity(items: Sequence[Sensitivity], looks: dict[str, Look], *, axis: str, y_label: str) -> Figure:
    """A line for each loss with a ring around its best value. × above the axes: there is less at this value than was
    tried; the legend says what. Values far beyond the others are cut off, which is said inside the axes."""
    places = _places([value for item in items for value in item.x])
    missing = _missing(items, looks)
    limits = _limits(items)
    legend = [Entry(line_of(looks[item.label]), _label(item, places, limits)) for item in items]
    if any(_has_best(item) for item in items):
        ring = Line2D([], [], color=INK, linestyle="none", marker="o", markersize=10, markerfacecolor="none")
        legend.append(Entry(ring, "best value of each loss"))
    names = ", ".join(item.label for item in items)
    height = HEIGHT + _ROW * max((len(colours) for colours in missing.values()), default=0)
    figure = new_figure(height, legend, title=f"{y_label} against {axis}: {names}")
    axes = figure.add_subplot()
    if places.kind == "log":
        axes.set_xscale("log")
    for i, item in enumerate(items):
        aside = ScaledTranslation((i - (len(items) - 1) / 2) * _ASIDE / 72, 0, figure.dpi_scale_trans)
        _draw(axes, item, looks[item.label], places, axes.transData + aside)
    for value, colours in missing.items():
        _mark_missing(axes, figure, places.at[value], colours)
    if limits is None:
        say_nothing_to_draw(axes)
    else:
        axes.set_ylim(*limits)
        values = np.concatenate([finite([item.mean, item.low, item.high]).ravel() for item in items])
        say_what_is_cut(axes, above=bool((values > limits[1]).any()), below=bool((values < limits[0]).any()))
    _set_width(axes, places)
    _place_ticks(axes, places)
    axes.set_xlabel(wrap(axis, PANEL_WIDTH))
    axes.set_ylabel(wrap(y_label, PANEL_HEIGHT))
    return finish(figure)


def _places(values: Sequence[Any]) -> _Places:
    unique = list(dict.fromkeys(map(_key, values)))
    numbers = [value for value in unique if not isinstance(value, str)]
    if not unique or len(numbers) < len(unique):
        return _Places({value: float(i) for i, value in enumerate(unique)}, "categories")
    is_log = min(numbers) > 0 and max(numbers) >= _LOG_FROM * min(numbers)
    return _Places({value: float(value) for value in sorted(numbers)}, "log" if is_log else "linear")


def _key(value: Any) -> float | str:
    """A finite number, or the text of anything else: a list, None, True (which Python takes for 1)."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else str(value)


def _has_best(item: Sensitivity) -> bool:
    return 0 <= item.best < len(item.mean) and math.isfinite(item.mean[item.best])


def _limits(items: Sequence[Sensitivity]) -> tuple[float, float] | None:
    """The limits of y; None without a finite value."""
    means = np.concatenate([finite(item.mean) for item in items]) if items else np.empty(0)
    known = means[np.isfinite(means)]
    if not len(known):
        return None
    best = [float(item.mean[item.best]) for item in items if _has_best(item)]
    middle = float(np.median(best or known))
    limit = max(reach(np.abs(known - middle)), reach(np.abs(np.asarray(best) - middle)))
    near = known[np.abs(known - middle) <= limit]
    low, high = float(near.min()), float(near.max())
    bands = np.concatenate([finite([item.low, item.high]).ravel() for item in items])
    bands = bands[np.isfinite(bands)]
    spare = (high - low) / 2
    bottom = min(low, max(low - spare, float(bands.min(initial=low))))
    top = max(high, min(high + spare, float(bands.max(initial=high))))
    edge = 0.07 * (top - bottom) or 0.01 * abs(top) or 1.0
    return bottom - edge, top + edge


def _label(item: Sensitivity, places: _Places, limits: tuple[float, float] | None) -> str:
    parts = [item.label]
    if not np.isfinite(finite(item.mean)).any():
        parts.append("no finite values")
    elif limits is not None and _has_best(item) and not limits[0] <= item.mean[item.best] <= limits[1]:
        parts.append(f"best {item.mean[item.best]:.4g}, beyond the axis")
    told = [f"{text} at {_name(value, places)}" for value, text in zip(item.x, item.missing, strict=True) if text]
    return ", ".join(parts) + (f" (×: {', '.join(told)})" if told else "")


def _name(value: Any, places: _Places) -> str:
    return str(value) if places.kind == "categories" else short(value)


def _draw(axes: Axes, item: Sensitivity, look: Look, places: _Places, place: Transform) -> None:
    """Bars for the spread, not an area: several areas would hide one another and the lines."""
    x = np.array([places.at[_key(value)] for value in item.x])
    order = np.argsort(x, kind="stable")
    mean, low, high = (finite(values)[order] for values in (item.mean, item.low, item.high))
    x = x[order]
    axes.plot(x, mean, color=look.colour, linestyle=look.dash, marker=look.marker, zorder=3, transform=place)
    known = np.isfinite(low) & np.isfinite(high) & (high > low)
    for at, ends in zip(x[known], np.stack([low, high], axis=1)[known], strict=True):
        bar = Line2D([at, at], ends, color=look.colour, linewidth=0.9, marker="_", markersize=4, alpha=0.75)
        bar.set_transform(place)
        axes.add_line(bar)
    if _has_best(item):
        at = places.at[_key(item.x[item.best])]
        ring = Line2D(
            [at], [item.mean[item.best]], marker="o", markersize=10, markerfacecolor="none", color=look.colour
        )
        ring.set_transform(place)
        axes.add_line(ring)


def _missing(items: Sequence[Sensitivity], looks: dict[str, Look]) -> dict[float | str, list[str]]:
    """Value → the colours of the losses of which something is missing there."""
    found: dict[float | str, list[str]] = {}
    for item in items:
        for value, text in zip(item.x, item.missing, strict=True):
            if text:
                found.setdefault(_key(value), []).append(looks[item.label].colour)
    return found


def _mark_missing(axes: Axes, figure: Figure, x: float, colours: Sequence[str]) -> None:
    """A × for each, upwards from the top edge."""
    for row, colour in enumerate(colours):
        lift = ScaledTranslation(0, (row + 0.6) * _ROW, figure.dpi_scale_trans)
        above = blended_transform_factory(axes.transData, axes.transAxes) + lift
        axes.plot(x, 1, transform=above, clip_on=False, color=colour, linestyle="none", marker="x", markersize=6)


def _set_width(axes: Axes, places: _Places) -> None:
    """Marks that stand aside of their values are unknown to matplotlib's own limits."""
    at = np.array(list(places.at.values()))
    if len(at) and places.kind != "categories":
        scaled = np.log(at) if places.kind == "log" else at
        spare = 0.06 * float(np.ptp(scaled)) or 0.5
        low, high = float(scaled.min()) - spare, float(scaled.max()) + spare
        axes.set_xlim(*np.exp([low, high]) if places.kind == "log" else (low, high))


def _place_ticks(axes: Axes, places: _Places) -> None:
    """Set ticks at the values that were tried, as many as there is room for."""
    if not places.at:
        return
    at = list(places.at.values())
    if places.kind == "categories":
        room = PANEL_WIDTH / len(at) - 0.08
        axes.set_xlim(-0.5, len(at) - 0.5)
        axes.set_xticks(at, labels=[wrap(str(value), room, SMALL) for value in places.at])
        return
    scale = np.log10(at) if places.kind == "log" else np.asarray(at)
    inches = (scale - scale[0]) / (float(np.ptp(scale)) or 1.0) * PANEL_WIDTH * 0.89
    kept: list[int] = []
    for i, place in enumerate(inches):
        wide = width_of(short(at[i]), SMALL)
        if not kept or place - inches[kept[-1]] > (wide + width_of(short(at[kept[-1]]), SMALL)) / 2 + 0.1:
            kept.append(i)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([at[i] for i in kept], labels=[short(at[i]) for i in kept])
