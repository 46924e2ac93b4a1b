"""The look of every figure, and its output: as files, or into a page of HTML."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal
from matplotlib.text import Text

from losslab.files import write_atomic

INK = "#1a1a1b"
"""Text, axes, grid and the baseline; nothing else has this colour, for `inline_svg` turns it into `currentColor`."""
COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#009e73", "#a53c5a", "#2e9be6", "#6b7f7f")
"""Okabe & Ito (2008) where it has 3:1 contrast on white and on #111; the last three lie between (OKLab, also as seen
with protanopia and deuteranopia)."""
MARKERS = ("s", "D", "*", "P", "d", "p")
"""No triangles: these point at what is beyond an axis."""
DASHES = ((0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1.2, 1, 1.2, 1)))
"""Their number shares no factor with that of the colours: 28 losses until a colour has the same dash again."""
FONT = 9.0
"""Points."""
SMALL = 8.0
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same metrics everywhere
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "text.parse_math": False,  # labels come from people: a $ is a $
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "grid.color": INK,
    "svg.hashsalt": "losslab",
    "svg.fonttype": "path",
}
_WITHOUT: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "png": {"Software": None},
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
"""Metadata that would change from day to day or from version to version."""
_CANVASES = {"svg": FigureCanvasSVG, "png": FigureCanvasAgg, "pdf": FigureCanvasPdf}
_PNG_DPI, _POINTS = 160, 72
_PAPER = "#ffffff"
"""Behind a figure in a file; nothing else has this colour, for `inline_svg` takes it away."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of one loss in every figure."""

    colour: str
    dash: Any
    """A linestyle of matplotlib."""
    marker: str


def looks(labels: Sequence[str], baseline: str) -> dict[str, Look]:
    """Label → look: ink and a solid line for the baseline, the others in the order of their labels."""
    others = sorted(set(labels) - {baseline})
    found = {baseline: Look(INK, "-", "o")}
    for i, label in enumerate(others):
        found[label] = Look(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
    return found


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's own defaults and ours on top, whatever the person's matplotlibrc says."""
    with style.context(_STYLE, after_reset=True):
        yield


def save(figure: Figure, target: Path) -> str:
    """Write `target`.svg, .png (160 dpi) and .pdf on white; the same data gives the same bytes. Letters are outlines:
    the figure looks the same wherever it is opened, and no journal misses a font.

    Returns:
        The SVG, for `inline_svg`.

    Raises:
        OSError: with the name of the file that could not be written.
    """
    drawn = {kind: _draw(figure, kind) for kind in _WITHOUT}
    for kind, content in drawn.items():
        write_atomic(target.with_name(f"{target.name}.{kind}"), content)
    return drawn["svg"].decode()


def inline_svg(figure: Figure, saved: str | None = None) -> str:
    """An <svg> element for a page of HTML: transparent, and with the page's own colour of text for ink.

    Its description for screen readers is the figure's label. It is as wide as its place, up to the figure's width.

    Args:
        saved: the value of `save`, if it was called; otherwise the figure is drawn again.
    """
    drawn = _draw(figure, "svg").decode() if saved is None else saved
    drawn = drawn.replace(f"fill: {_PAPER}", "fill: none")
    drawn = re.sub(r"<!--.*?-->", "", drawn, flags=re.DOTALL)  # people's labels, which the page has no use for
    drawn = drawn[drawn.index("<svg") :]
    # A hash of the content: two figures of a page get different ids, and a figure the same ones every time.
    prefix = f"f{hashlib.sha256(drawn.encode()).hexdigest()[:10]}"
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", drawn)
    drawn = drawn.replace("*{", f"#{prefix} *{{", 1)  # or the style would hold for the whole page
    drawn = drawn.replace(INK, "currentColor")
    width = figure.get_figwidth()
    box = re.search(r'viewBox="[^"]*"', drawn)
    assert box is not None
    start = (
        f'<svg id="{prefix}" class="figure" role="img" aria-label={quoteattr(str(figure.get_label()))} {box.group()} '
        f'style="width:100%;max-width:{width:g}in;height:auto" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    body = drawn[drawn.index(">") + 1 :]
    return start + re.sub(r"\s*\n\s*", "\n", body).rstrip()


def _draw(figure: Figure, kind: str) -> bytes:
    """Straight to a canvas: savefig would draw everything twice."""
    canvas: Any = _CANVASES[kind](figure)
    drawn, dpi = io.BytesIO(), figure.dpi
    figure.set_facecolor(_PAPER)
    figure.set_dpi(_PNG_DPI if kind == "png" else _POINTS)
    try:
        with styled(), _outlined(figure) if kind == "pdf" else nullcontext():
            getattr(canvas, f"print_{kind}")(drawn, metadata=_WITHOUT[kind])
    finally:
        figure.set_dpi(dpi)
    return drawn.getvalue()


@contextmanager
def _outlined(figure: Figure) -> Iterator[None]:
    """Draw letters as paths: subsetting a font for each PDF takes half of all the time."""
    texts = figure.findobj(Text)
    for text in texts:
        text.set_path_effects([Normal()])
    try:
        yield
    finally:
        for text in texts:
            text.set_path_effects([])
