"""A metric in the course of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from losslab.comparison.output.figures.layout import (
    FAR,
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
    wrap,
)
from losslab.comparison.output.figures.style import Look, styled

_MARKERS = 8
"""The number of markers on a curve of many points."""
_FAR = 15.0
"""The same as `layout.FAR`, but larger: a curve that is missing is worse than small differences, which have figures of
their own."""
_LOG_EDGE = 1.15
"""Factor between the outermost value and the end of a logarithmic axis."""
_DECADES = 3
"""Up to so many, 1, 2 and 5 of each have a label."""


@dataclass(frozen=True)
class Curve:
    """One loss."""

    label: str
    x: NDArray[np.float64]
    """[points], ascending."""
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    """The band; NaN where there is none."""
    high: NDArray[np.float64]
    n: int
    """Seeds."""


@dataclass(frozen=True)
class _Window:
    """The part of y that is shown."""

    low: float
    high: float
    cut_above: bool
    cut_below: bool


@styled()
def draw_curves(
    curves: Sequence[Curve],
    looks: dict[str, Look],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    whole: bool = False,
) -> Figure:
    """Mean and band of each loss. The right half of the curves gets at least a third of the height; if the rest does
    not fit, a sentence inside the axes says where it is cut off, and the legend where an end is beyond that.

    Args:
        log_x: leaves out what stands at x ≤ 0.
        whole: cuts nothing off, for curves whose spikes are what one looks for; the y axis is logarithmic where they
            span a decade.
    """
    shown = [_shown(curve, log_x) for curve in curves]
    log_y = whole and _spans_a_decade(shown)
    window = _whole_window(shown, log_y=log_y) if whole else _window(shown, log_x)
    legend = [Entry(line_of(looks[curve.label]), _label(curve, window)) for curve in shown]
    names = ", ".join(curve.label for curve in curves)
    figure = new_figure(HEIGHT, legend, title=f"{y_label} against {x_label}: {names}")
    axes = figure.add_subplot()
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    for i, curve in enumerate(shown):
        _draw(axes, curve, looks[curve.label], number=i, of=len(shown))
    axes.set_xlabel(wrap(x_label, PANEL_WIDTH))
    axes.set_ylabel(wrap(y_label, PANEL_HEIGHT))
    if window is None:
        say_nothing_to_draw(axes)
        return finish(figure)
    axes.set_ylim(window.low, window.high)
    _place_ticks(axes, log_x)
    if log_y:
        _label_decades(axes.yaxis, *axes.get_ylim())
    say_what_is_cut(axes, above=window.cut_above, below=window.cut_below)
    return finish(figure)


def _shown(curve: Curve, log_x: bool) -> Curve:
    """A curve without the points that have no place."""
    x, mean, low, high = (finite(values) for values in (curve.x, curve.mean, curve.low, curve.high))
    kept = np.isfinite(x) & np.isfinite(mean) & ((x > 0) | (not log_x))
    return Curve(curve.label, x[kept], mean[kept], low[kept], high[kept], curve.n)


def _window(curves: Sequence[Curve], log_x: bool) -> _Window | None:
    drawn = [curve for curve in curves if len(curve.x)]
    if not drawn:
        return None
    middle = float(np.median([curve.mean[-1] for curve in drawn]))
    later = [curve.mean[_half(curve.x, log_x) :] for curve in drawn]
    extents = [float(np.abs(values - middle).max()) for values in later]
    limit = reach(extents, far=_FAR)
    near = [i for i, extent in enumerate(extents) if extent <= limit]
    shown = np.concatenate([later[i] for i in near])
    bands = finite([[drawn[i].low[-1], drawn[i].high[-1]] for i in near])
    if limit > 0:  # the interval of two seeds may be huge
        bands = np.clip(bands, middle - FAR * limit, middle + FAR * limit)
    low, high = float(np.nanmin([shown.min(), *bands.ravel()])), float(np.nanmax([shown.max(), *bands.ravel()]))
    every = np.concatenate([np.concatenate([curve.mean, curve.low, curve.high]) for curve in drawn])
    least, most = float(np.nanmin(every)), float(np.nanmax(every))
    bottom, top = max(least, 2 * low - high), min(most, 2 * high - low)
    edge = 0.05 * (top - bottom) or 0.01 * abs(top) or 1.0
    return _Window(bottom - edge, top + edge, cut_above=most > top + edge, cut_below=least < bottom - edge)


def _spans_a_decade(curves: Sequence[Curve]) -> bool:
    means = np.concatenate([np.empty(0), *(curve.mean for curve in curves)])
    return bool(len(means) and means.min() > 0 and means.max() >= 10 * means.min())


def _whole_window(curves: Sequence[Curve], *, log_y: bool) -> _Window | None:
    """All means and their bands; of a logarithmic axis lower bounds near zero would take most, and are left out."""
    drawn = [curve for curve in curves if len(curve.x)]
    if not drawn:
        return None
    values = np.concatenate([part for curve in drawn for part in (curve.mean, curve.high)])
    lows = values if log_y else np.concatenate([values, *(curve.low for curve in drawn)])
    low, high = float(np.nanmin(lows)), float(np.nanmax(values))
    if log_y:
        return _Window(low / _LOG_EDGE, high * _LOG_EDGE, cut_above=False, cut_below=False)
    edge = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    return _Window(low - edge, high + edge, cut_above=False, cut_below=False)


def _half(x: NDArray[np.float64], log_x: bool) -> int:
    """Index of the first point in the right half of the axis."""
    place = np.log(x) if log_x else x
    return int(np.searchsorted(place, (place[0] + place[-1]) / 2))


def _label(curve: Curve, window: _Window | None) -> str:
    text = f"{curve.label} (n = {curve.n})"
    if window is None or not len(curve.x):
        return f"{text}, no finite values"
    end = float(curve.mean[-1])
    if window.low <= end <= window.high:
        return text
    return f"{text}, ends {'above' if end > window.high else 'below'} the axis at {end:.4g}"


def _draw(axes: Axes, curve: Curve, look: Look, *, number: int, of: int) -> None:
    # Markers of different curves at different points, or those of the last one hide the others.
    step = max(1, math.ceil(len(curve.x) / _MARKERS))
    axes.plot(
        curve.x,
        curve.mean,
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker,
        markevery=(number * step // max(of, 1), step),
        zorder=3,
    )
    band = np.isfinite(curve.low) & np.isfinite(curve.high)
    if len(curve.x) == 1 and band.all():  # an area of no width
        axes.vlines(curve.x, curve.low, curve.high, color=look.colour, linewidth=1.2)
    else:
        axes.fill_between(curve.x, curve.low, curve.high, where=band, color=look.colour, alpha=0.15, linewidth=0)


def _place_ticks(axes: Axes, log_x: bool) -> None:
    if log_x:
        _label_decades(axes.xaxis, *axes.get_xlim())
    else:
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _label_decades(axis: Axis, low: float, high: float) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if math.log10(high / low) <= _DECADES else (1,)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
