"""The figure: val/nll_scaled against the optimizer step, mean and band for each loss."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from losslab.comparison.load import Group
from losslab.files import write_atomic

mpl.use("Agg")

CURVE = "val/nll_scaled"
_KINDS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 160, "metadata": {"Software": None}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
}
"""Without what would change from day to day."""


def draw_curves(groups: list[Group], target: Path) -> None:
    """Write `target`.png and `target`.svg; the same runs give the same bytes."""
    from matplotlib import pyplot as plt

    style: dict[Any, Any] = {
        "svg.hashsalt": "losslab",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(7.0, 4.2), layout="constrained")
        for group in groups:
            curves = [curve for run in group.runs.values() if (curve := run.curve(CURVE))]
            if not curves:
                continue
            steps = sorted(set().union(*curves))
            columns = [[curve[step] for curve in curves if step in curve] for step in steps]
            middle = np.array([np.mean(column) for column in columns])
            spread = np.array([np.std(column, ddof=1) if len(column) > 1 else 0.0 for column in columns])
            (line,) = axes.plot(steps, middle, marker="o", markersize=3, label=f"{group.label} (n = {len(curves)})")
            axes.fill_between(steps, middle - spread, middle + spread, alpha=0.2, color=line.get_color(), linewidth=0)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(f"{CURVE}, nats per token")
        axes.set_title("mean over seeds, band ± 1 standard deviation", fontsize=9, loc="left")
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(frameon=False)
        for kind, options in _KINDS.items():
            drawn = io.BytesIO()
            figure.savefig(drawn, format=kind, **options)
            write_atomic(target.with_suffix(f".{kind}"), drawn.getbuffer())
        plt.close(figure)
