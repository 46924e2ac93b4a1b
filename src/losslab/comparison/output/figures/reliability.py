"""Accuracy against confidence, before and after one fitted temperature: a reliability diagram in log-odds.

Most confidences of a language model lie below 0.15, in a corner of axes that go from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import NDArray

from losslab.comparison.output.figures.layout import Entry, finish, finite, line_of, new_figure, say_nothing_to_draw
from losslab.comparison.output.figures.style import INK, Look, styled

_HEIGHT = 3.65
_PANELS = ("before scaling", "after scaling by one temperature")
_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.85, 0.95, 0.99, 0.999)
_EDGE = 0.06
"""A share of the axis, beyond the outermost value."""
_NARROWEST = 1.0
"""Log-odds that an axis shows at least."""


@dataclass(frozen=True)
class Reliability:
    """One loss."""

    label: str
    before: NDArray[np.float64]
    """[seeds, 3, bins]: weight, hits and Σ confidence of equal-mass groups of confidence."""
    after: NDArray[np.float64]
    ece: tuple[float, float]
    """The values before and after scaling."""


@styled()
def draw_reliability(items: Sequence[Reliability], looks: dict[str, Look]) -> Figure:
    """Two panels with the diagonal of perfect calibration; the legend gives the expected calibration errors."""
    diagonal = Line2D([], [], color=INK, linewidth=0.8, alpha=0.5)
    legend = [Entry(line_of(looks[item.label]), f"{item.label}: ECE {_change(item.ece)}") for item in items]
    legend.append(Entry(diagonal, "perfect calibration"))
    names = ", ".join(entry.label for entry in legend[:-1])
    figure = new_figure(_HEIGHT, legend, title=f"accuracy against confidence; {names}")
    panels = [[rates_of(item.before) for item in items], [rates_of(item.after) for item in items]]
    low, high = _limits([rates for panel in panels for rates in panel])
    first: Axes | None = None
    for column, (panel, name) in enumerate(zip(panels, _PANELS, strict=True)):
        axes = first = figure.add_subplot(1, 2, column + 1, sharex=first, sharey=first)
        axes.plot([low, high], [low, high], color=INK, linewidth=0.8, alpha=0.5, scalex=False, scaley=False)
        for item, rates in zip(items, panel, strict=True):
            _draw(axes, rates, looks[item.label], low, high)
        if not any(np.isfinite(rates[:2]).all(axis=0).any() for rates in panel):
            say_nothing_to_draw(axes)
        axes.set_title(name, loc="left")
        axes.set_box_aspect(1)
        for axis in (axes.xaxis, axes.yaxis):
            _label(axis, low, high)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
    return finish(figure)


def rates_of(groups: NDArray[np.float64]) -> NDArray[np.float64]:
    """Confidence, accuracy, its band's ends and the weight [5, bins] of groups [seeds, 3, bins]; NaN where they are
    empty. The band is ± 1 standard deviation over seeds of accuracy less confidence, both in log-odds."""
    weight, hits, confidence = np.nansum(finite(groups), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.stack([confidence, hits]) / np.where(weight > 0, weight, np.nan)
        own = finite(groups)
        distance = _log_odds(own[:, 1] / own[:, 0]) - _log_odds(own[:, 2] / own[:, 0])
        distance = np.where(np.isfinite(distance), distance, np.nan)
        counts = np.isfinite(distance).sum(axis=0)
        centred = distance - np.nansum(distance, axis=0) / np.maximum(counts, 1)
        spread = np.sqrt(np.nansum(centred**2, axis=0) / np.where(counts > 1, counts - 1, np.nan))
        middle = _log_odds(mean[1])
        ends = [1 / (1 + np.exp(-(middle + sign * spread))) for sign in (-1, 1)]
    found: NDArray[np.float64] = np.stack([*mean, *ends, weight])
    return found


def _log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """±inf for 0 and 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = np.log(share) - np.log1p(-share)
    return found


def _limits(panels: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Log-odds of both axes: of all confidences and accuracies."""
    values = finite(np.concatenate([np.empty(0), *(_log_odds(rates[:2]).ravel() for rates in panels)]))
    known = values[np.isfinite(values)]
    if not len(known):
        return -_NARROWEST, _NARROWEST
    low, high = float(known.min()), float(known.max())
    spare = max(_EDGE * (high - low), (_NARROWEST - (high - low)) / 2)
    return low - spare, high + spare


def _draw(axes: Axes, rates: NDArray[np.float64], look: Look, low: float, high: float) -> None:
    """A line that empty groups interrupt; groups without a hit, or with hits alone, are arrows at the edge."""
    x, y, bottom, top = _log_odds(rates[:4])
    axes.plot(x, finite(y), color=look.colour, linestyle=look.dash, marker=look.marker, markersize=4, linewidth=1.2)
    band = np.isfinite(bottom) & np.isfinite(top)
    axes.fill_between(x, bottom, top, where=band, color=look.colour, alpha=0.15, linewidth=0)
    for beyond, marker, edge in ((np.isneginf(y), "v", low), (np.isposinf(y), "^", high)):
        axes.plot(x[beyond], np.full(int(beyond.sum()), edge), color=look.colour, marker=marker, linestyle="none")


def _label(axis: Axis, low: float, high: float) -> None:
    """Probabilities, as many as there is room for."""
    kept: list[float] = []
    for share in _TICKS:
        at = math.log(share / (1 - share))
        if low <= at <= high and (not kept or at - kept[-1] > (high - low) / 8):
            kept.append(at)
    axis.set_major_locator(FixedLocator(kept))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{1 / (1 + math.exp(-value)):.3g}"))


def _change(ece: tuple[float, float]) -> str:
    before, after = (f"{value:.3f}" if math.isfinite(value) else "unknown" for value in ece)
    return f"{before} → {after}"
