"""Figures of values over steps, compute or cost, and over trials: which there are, and what each of them answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from losslab.comparison.analysis import Comparison
from losslab.comparison.costs import flops_per_step
from losslab.comparison.curves import GRADIENT_NORM, LOGIT_NORM, drawn
from losslab.comparison.output.figures.curves import Curve, draw_curves
from losslab.comparison.output.figures.style import Look
from losslab.comparison.output.picture import Picture, slug

_MEAN = "Lines are means over seeds, bands ± 1 standard deviation."
_CAPTIONS = {
    "nll after one temperature": "after one fitted temperature",
    "nll": "How does the raw nll, without a fitted temperature, fall? (Bits per byte are a multiple of it.)",
    "top-1 accuracy": "How does the share of tokens that are ranked first grow?",
    "nll through the loss's own link": "How does the nll through each loss's own link fall?",
    "scale that fits the logits best": "How far from calibrated are the logits: which scale s would fit best?",
}
"""Label of a metric → the words of its curve, where losslab has some of its own."""


def curve_pictures(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    shown = f"val/{c.declared.primary}"
    label, axis = c.declared[shown].label, c.declared.axis(shown)
    by_step = _curve_items(c, shown, {})
    if by_step:
        said = _CAPTIONS.get(label, label)
        text = f"Where does each loss stand at every step? {shown}, {said}.{_same_cost(c)}"
        yield _curve_picture("curves", "Curves", text, by_step, style, "optimizer step", axis)
    flops = {x.label: value for x in c.contenders if (value := flops_per_step(x)) is not None}
    # Where every loss's step costs the same FLOPs, the curves by step are those by compute: the caption says so.
    if len(set(flops.values())) > 1 and by_step and len(items := _curve_items(c, shown, flops)) == len(by_step):
        text = "And at every amount of compute?"
        yield _curve_picture("curves-compute", "Curves", text, items, style, "training compute, FLOPs", axis)
    if c.costs is not None and c.costs.measured and len(items := _curve_items(c, shown, c.costs.of)) == len(by_step):
        text = f"And at every cost? Steps, times what a step costs relative to {c.baseline}'s: {c.costs.told}."
        yield _curve_picture("curves-cost", "Curves", text, items, style, f"cost, in steps of {c.baseline}", axis)
    for metric in drawn(c.declared):
        items = _curve_items(c, metric, {})
        if items:
            file, label, axis = f"curves-{slug(metric)}", c.declared[metric].label, c.declared.axis(metric)
            text = _CAPTIONS.get(label, f"How does {metric} ({label}) change over the steps?")
            yield _curve_picture(file, "Curves of other metrics", text, items, style, "optimizer step", axis)


def norm_pictures(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    for metric, file, label, text in (
        (GRADIENT_NORM, "gradient-norm", "gradient norm", "How large are the gradients, before clipping?"),
        (LOGIT_NORM, "logit-norm", "logit norm", "How large do the logits grow?"),
    ):
        items = _curve_items(c, metric, {})
        if items:
            picture = _curve_picture(file, "Norms", text, items, style, "optimizer step", metric)
            yield Picture(
                **{**vars(picture), "draw": _drawn_curves(items, style, label)},
            )


def expected_pictures(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    if not c.expected or c.selection is None:
        return
    flops = all(item.cost[0] > 1 for item in c.expected)
    x_label = "training compute of all trials, FLOPs" if flops else "trials"
    items = [Curve(e.label, e.cost, e.mean, e.mean - e.std, e.mean + e.std, e.seeds) for e in c.expected]
    metric = c.selection
    yield Picture(
        file="expected-best",
        section="Tuning",
        caption=(
            f"How good is the best of n settings, for what it costs to try them? Expected best validation{c.when} of n "
            "settings drawn without replacement, mean over seeds ± 1 standard deviation; runs without a result count "
            "as the worst."
        ),
        columns=("loss", "trials", x_label, "mean", "std"),
        data=[
            (e.label, *(float(v) for v in point))
            for e in c.expected
            for point in zip(e.trials, e.cost, e.mean, e.std, strict=True)
        ],
        draw=lambda: draw_curves(items, style, x_label=x_label, y_label=f"expected best {c.declared.axis(metric)}"),
    )


def _same_cost(c: Comparison) -> str:
    flops = {factor for x in c.contenders if x.runs and (factor := flops_per_step(x)) is not None}
    return f" A step costs {flops.pop():.3g} FLOPs, the loss itself not counted." if len(flops) == 1 else ""


def _curve_items(c: Comparison, metric: str, factors: dict[str, float]) -> list[Curve]:
    found = []
    for contender in c.contenders:
        curve = c.curves.get(contender.label, {}).get(metric)
        if curve is None or (factors and contender.label not in factors):
            continue
        x = curve.steps * factors.get(contender.label, 1.0)
        low = curve.mean - curve.std
        low = np.maximum(low, 0.0) if metric in (GRADIENT_NORM, LOGIT_NORM) else low  # no norm is below 0
        found.append(Curve(contender.label, x, curve.mean, low, curve.mean + curve.std, curve.n))
    return found


def _curve_picture(
    file: str, section: str, text: str, items: list[Curve], style: dict[str, Look], x_label: str, y_label: str
) -> Picture:
    return Picture(
        file=file,
        section=section,
        caption=f"{text} {_MEAN}",
        columns=("loss", x_label, "mean", "low", "high", "n"),
        data=[
            (i.label, *(float(v) for v in point), i.n)
            for i in items
            for point in zip(i.x, i.mean, i.low, i.high, strict=True)
        ],
        draw=lambda: draw_curves(items, style, x_label=x_label, y_label=y_label),
    )


def _drawn_curves(items: Sequence[Curve], style: dict[str, Look], label: str) -> Callable[[], Figure]:
    return lambda: draw_curves(items, style, x_label="optimizer step", y_label=label, whole=True)
