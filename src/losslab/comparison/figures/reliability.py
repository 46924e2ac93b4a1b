"""Accuracy against confidence, before and after one fitted temperature: a reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from losslab.comparison.figures.layout import Entry, finish, finite, line_of, new_figure, say_nothing_to_draw
from losslab.comparison.figures.style import INK, Look, styled

_HEIGHT = 3.65
_PANELS = ("before scaling", "after scaling by one temperature")
_WHOLE = 0.7
"""What comes so far is shown up to 1."""


@dataclass(frozen=True)
class Reliability:
    """One loss."""

    label: str
    before: NDArray[np.float64]
    """[3, bins]: weight, hits and Σ confidence of equal-mass groups of confidence, summed over seeds."""
    after: NDArray[np.float64]
    ece: tuple[float, float]
    """Before and after."""


@styled()
def draw_reliability(items: Sequence[Reliability], looks: dict[str, Look]) -> Figure:
    """Two panels with the diagonal of perfect calibration; the legend gives the expected calibration errors."""
    diagonal = Line2D([], [], color=INK, linewidth=0.8, alpha=0.5)
    legend = [Entry(line_of(looks[item.label]), f"{item.label}: ECE {_change(item.ece)}") for item in items]
    legend.append(Entry(diagonal, "perfect calibration"))
    names = ", ".join(entry.label for entry in legend[:-1])
    figure = new_figure(_HEIGHT, legend, title=f"accuracy against confidence; {names}")
    panels = [[_rates(item.before) for item in items], [_rates(item.after) for item in items]]
    shown = [rates for panel in panels for rates in panel if rates.size]
    top = float(np.concatenate(shown, axis=1).max()) if shown else 1.0
    top = 1.0 if top > _WHOLE or top <= 0.0 else 1.08 * top
    first: Axes | None = None
    for column, (panel, name) in enumerate(zip(panels, _PANELS, strict=True)):
        axes = first = figure.add_subplot(1, 2, column + 1, sharex=first, sharey=first)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.5, scalex=False, scaley=False)
        for item, rates in zip(items, panel, strict=True):
            look = looks[item.label]
            if rates.size:
                axes.plot(*rates, color=look.colour, linestyle=look.dash, marker=look.marker, linewidth=1.2)
        if not any(rates.size for rates in panel):
            say_nothing_to_draw(axes)
        axes.set_title(name, loc="left")
        axes.set_box_aspect(1)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
    return finish(figure)


def _change(ece: tuple[float, float]) -> str:
    before, after = (f"{value:.3f}" if math.isfinite(value) else "unknown" for value in ece)
    return f"{before} → {after}"


def _rates(bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Confidence and accuracy [2, groups], of the groups that are not empty."""
    weight, hits, confidence = finite(bins)
    kept = weight > 0
    rates: NDArray[np.float64] = np.stack([confidence[kept], hits[kept]]) / weight[kept]
    known: NDArray[np.float64] = rates[:, np.isfinite(rates).all(axis=0)]
    return known
