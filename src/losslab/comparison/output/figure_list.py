"""Which figures a comparison has, what each of them answers, and the data that it shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from losslab.comparison.analysis import Comparison
from losslab.comparison.costs import flops_per_step
from losslab.comparison.curves import GRADIENT_NORM, LOGIT_NORM
from losslab.comparison.metrics import higher_is_better, name, unit
from losslab.comparison.output.figures.curves import Curve, draw_curves
from losslab.comparison.output.figures.differences import Difference, draw_differences
from losslab.comparison.output.figures.frequency import ByFrequency, draw_frequency
from losslab.comparison.output.figures.reliability import Reliability, draw_reliability, rates_of
from losslab.comparison.output.figures.sensitivity import Sensitivity, draw_sensitivity
from losslab.comparison.output.figures.style import Look, looks
from losslab.comparison.rows import Row, values_of
from losslab.comparison.runs.contenders import Contender

_FREQUENCIES = [f"test/nll_scaled_frequency_{k}" for k in range(1, 6)]
_MEAN = "Lines are means over seeds, bands ± 1 standard deviation."
_OTHER_CURVES = {
    "val/nll": "How does the raw nll, without a fitted temperature, fall? (Bits per byte are a multiple of it.)",
    "val/top1": "How does the share of tokens that are ranked first grow?",
    "val/nll_linked": "How does the nll through each loss's own link fall?",
    "val/scale": "How far from calibrated are the logits: which scale s would fit best?",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    file: str
    """Its name without an ending."""
    section: str
    caption: str
    """The question that it answers, and how to read it."""
    columns: tuple[str, ...]
    data: list[tuple[Any, ...]]
    """What is drawn, as a table."""
    draw: Callable[[], Figure]

    def to_csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if _is_nan(cell) else cell for cell in line] for line in self.data])
        return out.getvalue()


def pictures(c: Comparison) -> list[Picture]:
    """Those that this comparison has the data for, in the order of the report."""
    style = looks([contender.label for contender in c.contenders], c.baseline)
    found = [*_differences(c, style), *_curves(c, style), *_sensitivity(c, style), *_expected(c, style)]
    return [*found, *_reliability(c, style), *_frequency(c, style), *_norms(c, style)]


def _differences(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    for metric, rows in {**c.tables, **c.checked}.items():
        items = [_difference(row) for row in rows if row.paired is not None]
        if not items:
            continue
        primary = metric in c.metrics
        yield Picture(
            file=f"differences-{_slug(metric)}",
            section="Differences" if primary else "Does it hold elsewhere?",
            caption=(
                f"Which losses differ from {c.baseline} in {metric} ({name(metric)})? Points are seeds, the mark their "
                "mean, the bar its simultaneous 95% interval"
                + ("; inside the band a difference counts as none." if c.margin is not None or not primary else ".")
            ),
            columns=("loss", "seed", "difference"),
            data=[(row.label, seed, value) for row in rows for seed, value in row.differences.items()],
            draw=_forest(items, style, c, metric),
        )


def _difference(row: Row) -> Difference:
    assert row.paired is not None
    points = np.array(list(row.differences.values()))
    return Difference(row.label, row.paired.mean, row.paired.low, row.paired.high, points, row.verdict.text)


def _forest(items: list[Difference], style: dict[str, Look], c: Comparison, metric: str) -> Callable[[], Figure]:
    return lambda: draw_differences(
        items,
        style,
        metric=_axis(metric),
        baseline=c.baseline,
        margin=c.margin_of(metric),
        higher_is_better=higher_is_better(metric),
    )


def _curves(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    shown = "val/nll_scaled"
    by_step = _curve_items(c, shown, {})
    if by_step:
        text = f"Where does each loss stand at every step? val/nll_scaled, after one fitted temperature.{_same_cost(c)}"
        yield _curve_picture("curves", "Curves", text, by_step, style, "optimizer step", shown)
    flops = {x.label: value for x in c.contenders if (value := flops_per_step(x)) is not None}
    # Where every loss's step costs the same FLOPs, the curves by step are those by compute: the caption says so.
    if len(set(flops.values())) > 1 and by_step and len(items := _curve_items(c, shown, flops)) == len(by_step):
        text = "And at every amount of compute?"
        yield _curve_picture("curves-compute", "Curves", text, items, style, "training compute, FLOPs", shown)
    if c.costs is not None and c.costs.measured and len(items := _curve_items(c, shown, c.costs.of)) == len(by_step):
        text = f"And at every cost? Steps, times what a step costs relative to {c.baseline}'s: {c.costs.told}."
        yield _curve_picture("curves-cost", "Curves", text, items, style, f"cost, in steps of {c.baseline}", shown)
    for metric, text in _OTHER_CURVES.items():
        items = _curve_items(c, metric, {})
        if items:
            file = f"curves-{_slug(metric)}"
            yield _curve_picture(file, "Curves of other metrics", text, items, style, "optimizer step", metric)


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
    file: str, section: str, text: str, items: list[Curve], style: dict[str, Look], x_label: str, metric: str
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
        draw=lambda: draw_curves(items, style, x_label=x_label, y_label=_axis(metric)),
    )


def _sensitivity(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    for key in dict.fromkeys(axis.key for axis in c.axes):
        axes = [axis for axis in c.axes if axis.key == key]
        items = [
            Sensitivity(
                label=axis.label,
                x=tuple(tried.value for tried in axis.tried),
                mean=np.array([tried.mean for tried in axis.tried]),
                low=np.array([tried.mean - np.nan_to_num(tried.std) for tried in axis.tried]),
                high=np.array([tried.mean + np.nan_to_num(tried.std) for tried in axis.tried]),
                best=axis.best,
                missing=tuple(tried.missing for tried in axis.tried),
            )
            for axis in axes
        ]
        assert c.selection is not None
        yield Picture(
            file=f"sensitivity-{_slug(key)}",
            section="Tuning",
            caption=(
                f"How much does each loss depend on {key}? {c.selection} of each value: means over seeds, bars ± 1 "
                "standard deviation; the chosen value has a ring. A loss that is good over a wide range is easy to "
                "tune."
            ),
            columns=("loss", key, c.selection, "std", "without a result"),
            data=[(axis.label, t.value, t.mean, t.std, t.missing) for axis in axes for t in axis.tried],
            draw=_drawn_sensitivity(items, style, key, c.selection),
        )


def _drawn_sensitivity(items: list[Sensitivity], style: dict[str, Look], key: str, metric: str) -> Callable[[], Figure]:
    return lambda: draw_sensitivity(items, style, axis=key, y_label=_axis(metric))


def _expected(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
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
            "How good is the best of n settings, for what it costs to try them? Expected best validation of n settings "
            "drawn without replacement, mean over seeds ± 1 standard deviation; runs without a result count as the "
            "worst."
        ),
        columns=("loss", "trials", x_label, "mean", "std"),
        data=[
            (e.label, *(float(v) for v in point))
            for e in c.expected
            for point in zip(e.trials, e.cost, e.mean, e.std, strict=True)
        ],
        draw=lambda: draw_curves(items, style, x_label=x_label, y_label=f"expected best {_axis(metric)}"),
    )


def _reliability(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    items = [
        Reliability(
            x.label,
            c.reliability[x.label][:, 0],
            c.reliability[x.label][:, 1],
            (_mean(x, "test/ece"), _mean(x, "test/ece_scaled")),
        )
        for x in c.contenders
        if x.label in c.reliability
    ]
    if items:
        yield Picture(
            file="reliability",
            section="Calibration",
            caption=(
                "Is a token that gets probability p right p of the time, before and after one temperature is fitted? "
                "15 groups of equal mass, test, all seeds together, on axes of log-odds; bands: ± 1 standard deviation "
                "over seeds of the distance from the diagonal; an arrow: nothing or everything of the group is right. "
                "ece, the mean distance from the diagonal, is the mean of the seeds' own."
            ),
            columns=("loss", "scaled", "group", "confidence", "accuracy", "low", "high", "tokens"),
            data=[
                (item.label, scaled, k + 1, *point)
                for item in items
                for scaled, groups in (("no", item.before), ("yes", item.after))
                for k, point in enumerate(rates_of(groups).T.tolist())
                if point[-1]
            ],
            draw=lambda: draw_reliability(items, style),
        )


def _mean(contender: Contender, metric: str) -> float:
    values = list(values_of(contender, metric).values())
    return float(np.mean(values)) if values else float("nan")


def _frequency(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    items, tables = [], {c.metric: c.rows, **c.also}
    for contender in c.contenders:
        reference = c.baselines.get(contender.stratum)
        if reference is None or reference is contender:
            continue
        results = [
            next((row.paired for row in tables.get(metric, []) if row.label == contender.label), None)
            for metric in _FREQUENCIES
        ]
        if any(results):
            table = np.array([(r.mean, r.low, r.high) if r else (np.nan,) * 3 for r in results])
            items.append(ByFrequency(contender.label, *table.T))
    if items:
        yield Picture(
            file="frequency",
            section="Which tokens?",
            caption=(
                f"Do losses differ from {c.baseline} on frequent or on rare tokens? Difference in test nll_scaled, by "
                "fifths of train's text from its most frequent tokens to its rarest, with 95% intervals over seeds "
                "that are simultaneous over the losses."
            ),
            columns=("loss", "fifth", "difference", "low", "high"),
            data=[
                (i.label, k + 1, *(float(v) for v in point))
                for i in items
                for k, point in enumerate(zip(i.mean, i.low, i.high, strict=True))
            ],
            draw=lambda: draw_frequency(items, style, metric="test/nll_scaled", baseline=c.baseline),
        )


def _norms(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
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


def _drawn_curves(items: Sequence[Curve], style: dict[str, Look], label: str) -> Callable[[], Figure]:
    return lambda: draw_curves(items, style, x_label="optimizer step", y_label=label, whole=True)


def _axis(metric: str) -> str:
    return f"{metric}, {unit(metric)}" if unit(metric) else metric


def _slug(text: str) -> str:
    return "".join(character if character.isalnum() or character in "._" else "-" for character in text)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)
