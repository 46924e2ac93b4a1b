"""Figures of a comparison: which there are, what each of them answers, and the data that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.figure import Figure

from losslab.comparison.analysis import Comparison
from losslab.comparison.output.class_list import class_pictures
from losslab.comparison.output.curve_list import curve_pictures, expected_pictures, norm_pictures
from losslab.comparison.output.figures.differences import Difference, draw_differences
from losslab.comparison.output.figures.frequency import ByFrequency, draw_frequency
from losslab.comparison.output.figures.reliability import Reliability, draw_reliability, rates_of
from losslab.comparison.output.figures.sensitivity import Sensitivity, draw_sensitivity
from losslab.comparison.output.figures.style import Look, looks
from losslab.comparison.output.picture import Picture, slug
from losslab.comparison.rows import Row, values_of
from losslab.comparison.runs.contenders import Contender


def pictures(c: Comparison) -> list[Picture]:
    """Figures for which this comparison has the data, in the order of the report."""
    style = looks([contender.label for contender in c.contenders], c.baseline)
    found = [*_differences(c, style), *curve_pictures(c, style), *_sensitivity(c, style), *expected_pictures(c, style)]
    found += [*_reliability(c, style), *class_pictures(c, style)]
    return [*found, *_frequency(c, style), *norm_pictures(c, style)]


def _differences(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    for metric, rows in {**c.tables, **c.checked}.items():
        items = [_difference(row) for row in rows if row.paired is not None]
        if not items:
            continue
        primary = metric in c.metrics
        yield Picture(
            file=f"differences-{slug(metric)}",
            section="Differences" if primary else "Does it hold elsewhere?",
            caption=(
                f"Which losses differ from {c.baseline} in {metric} ({c.declared[metric].label}){c.when}? Points are "
                "seeds, the mark their mean, the bar its "
                f"{c.kind_of_interval} 95% interval"
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
        metric=c.declared.axis(metric, c.when),
        baseline=c.baseline,
        margin=c.margin_of(metric),
        higher_is_better=c.declared.higher_is_better(metric),
        intervals=c.kind_of_interval,
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
            file=f"sensitivity-{slug(key)}",
            section="Tuning",
            caption=(
                f"How much does each loss depend on {key}? {c.selection}{c.when} of each value: means over seeds, bars "
                "± 1 standard deviation; the chosen value has a ring. A loss that is good over a wide range is easy to "
                "tune."
            ),
            columns=("loss", key, c.selection, "std", "without a result"),
            data=[(axis.label, t.value, t.mean, t.std, t.missing) for axis in axes for t in axis.tried],
            draw=_drawn_sensitivity(items, style, key, c.declared.axis(c.selection)),
        )


def _drawn_sensitivity(
    items: list[Sensitivity], style: dict[str, Look], key: str, y_label: str
) -> Callable[[], Figure]:
    return lambda: draw_sensitivity(items, style, axis=key, y_label=y_label)


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
    frequencies = [f"test/{name}" for name in c.declared.shown("frequency")]
    for contender in c.contenders:
        reference = c.baselines.get(contender.stratum)
        if reference is None or reference is contender:
            continue
        results = [
            next((row.paired for row in tables.get(metric, []) if row.label == contender.label), None)
            for metric in frequencies
        ]
        if any(results):
            table = np.array([(r.mean, r.low, r.high) if r else (np.nan,) * 3 for r in results])
            items.append(ByFrequency(contender.label, *table.T))
    if items:
        of_all = frequencies[0].partition("_frequency_")[0]
        yield Picture(
            file="frequency",
            section="Which tokens?",
            caption=(
                f"Do losses differ from {c.baseline} on frequent or on rare tokens? Difference in "
                f"{of_all.replace('/', ' ')}{c.when}, by fifths of train's text from its most frequent tokens to its "
                "rarest, with 95% intervals over seeds that are simultaneous over the losses."
            ),
            columns=("loss", "fifth", "difference", "low", "high"),
            data=[
                (i.label, k + 1, *(float(v) for v in point))
                for i in items
                for k, point in enumerate(zip(i.mean, i.low, i.high, strict=True))
            ],
            draw=lambda: draw_frequency(items, style, metric=of_all, baseline=c.baseline),
        )
