"""Figures of classes, of types of entities, and of residuals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.figure import Figure

from losslab.comparison.analysis import Comparison
from losslab.comparison.by_class import ByClass
from losslab.comparison.output.figures.by_class import ClassDifferences, draw_class_differences
from losslab.comparison.output.figures.confused_pairs import draw_confused_pairs
from losslab.comparison.output.figures.confusion import Matrix, draw_confusion
from losslab.comparison.output.figures.residuals import draw_residuals
from losslab.comparison.output.figures.style import Look
from losslab.comparison.output.picture import Picture
from losslab.comparison.residuals import Residuals

_MOST_IN_A_MATRIX = 15
_MOST_MATRICES = 9
_MOST_PAIRS = 15
_MOST_ROWS = 20
_OF_FIXED = (
    " These intervals are for a fixed number of seeds: they are not the repeated ones of the table, and miss more "
    "often where the sweep stopped because of its results."
)
_SECTION = "Which classes?"


def class_pictures(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    """Figures for which runs keep the arrays."""
    for found, file, what in (
        (c.classes, "classes", ("class", "classes")),
        (c.entities, "entities", ("type of entity", "types of entities")),
    ):
        if found is not None:
            yield from _differences(c, found, style, file, what)
    if c.classes is not None and c.classes.confusion:
        yield from _confusion(c, c.classes, style)
    yield from _residuals(c, style)


def _differences(
    c: Comparison, found: ByClass, style: dict[str, Look], file: str, what: tuple[str, str]
) -> Iterator[Picture]:
    if not found.differences:
        return
    one, many = what
    mean = np.array([[paired.mean for paired in own] for own in found.differences.values()])
    largest = np.argsort(-np.abs(mean).max(axis=0), kind="stable")[:_MOST_ROWS]
    order = [int(k) for k in sorted(largest, key=lambda k: -mean[:, k].mean())]
    items = [
        ClassDifferences(
            label,
            np.array([own[k].mean for k in order]),
            np.array([own[k].low for k in order]),
            np.array([own[k].high for k in order]),
        )
        for label, own in found.differences.items()
    ]
    names = [f"{found.names[k] or 'without a type'} ({found.support[k]:,.0f})" for k in order]
    left_out = len(found.names) - len(order)
    more = f" The {len(order)} of {len(found.names)} with the largest differences." if left_out else ""
    more += "" if c.growing is None else _OF_FIXED
    yield Picture(
        file=f"differences-{file}",
        section=_SECTION,
        caption=(
            f"On which {many} do losses differ from {c.baseline}? Difference in F1 on test, means over seeds with 95% "
            f"intervals that are simultaneous over every {one} and loss; behind each name, how often it is true in "
            f"test.{more}"
        ),
        columns=("loss", one, "in test", "F1", "difference", "low", "high", "p adjusted"),
        data=[
            (
                label,
                name,
                float(found.support[k]),
                float(found.f1[label][k]),
                own[k].mean,
                own[k].low,
                own[k].high,
                own[k].p,
            )
            for label, own in found.differences.items()
            for k, name in enumerate(found.names)
        ],
        draw=lambda: draw_class_differences(items, style, names=names, baseline=c.baseline, metric="F1"),
    )


def _confusion(c: Comparison, found: ByClass, style: dict[str, Look]) -> Iterator[Picture]:
    items = [Matrix(label, shares) for label, shares in found.confusion.items()]
    columns = ("loss", "true", "predicted", "share of the true class")
    if len(found.names) > _MOST_IN_A_MATRIX:
        pairs = _most_confused(found)
        if pairs:
            yield Picture(
                file="confused-classes",
                section=_SECTION,
                caption=(
                    f"Which classes are taken for which? The {len(pairs)} pairs with the most mistakes on test, of all "
                    "losses together: of the class on the left, the share that is predicted as the one on the right; "
                    "means over seeds."
                ),
                columns=columns,
                data=[
                    (item.label, found.names[true], found.names[said], float(item.shares[true, said]))
                    for item in items
                    for true, said in pairs
                ],
                draw=lambda: draw_confused_pairs(items, style, names=found.names, pairs=pairs),
            )
        return
    drawn = sorted(items, key=lambda item: item.label != c.baseline)[:_MOST_MATRICES]
    left_out = f" {len(items) - len(drawn)} more losses stand in the table." if len(items) > len(drawn) else ""
    yield Picture(
        file="confusion",
        section=_SECTION,
        caption=(
            "Which classes are taken for which? Per cent of each true class (row) that is predicted as each class "
            f"(column), test, means over seeds.{left_out}"
        ),
        columns=columns,
        data=[
            (item.label, true, said, float(item.shares[i, j]))
            for item in items
            for i, true in enumerate(found.names)
            for j, said in enumerate(found.names)
        ],
        draw=lambda: draw_confusion(drawn, names=found.names),
    )


def _most_confused(found: ByClass) -> list[tuple[int, int]]:
    """True and predicted class of the pairs with the most mistakes, mean over losses."""
    counts = np.nan_to_num(np.mean(list(found.confusion.values()), axis=0)) * found.support[:, None]
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts.ravel(), kind="stable")[:_MOST_PAIRS]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [pair for pair in pairs if counts[pair] > 0]


def _residuals(c: Comparison, style: dict[str, Look]) -> Iterator[Picture]:
    unit = c.declared[c.metric].unit if c.residuals else ""
    places = sorted({item.place for item in c.residuals})
    for place in places:
        items = [item for item in c.residuals if item.place == place]
        which = f", value {place + 1}" if len(places) > 1 else ""
        yield Picture(
            file=f"residuals-{place + 1}" if len(places) > 1 else "residuals",
            section="Residuals",
            caption=(
                f"Are large or small values predicted too high or too low? Predicted less true{which}, by tenths of "
                "test's targets: medians, and bars from the 10% to the 90% quantile, all seeds together. A line that "
                "falls from left to right: predictions stay too near to the middle."
            ),
            columns=("loss", "group", "mean target", "10%", "median", "90%", "residuals"),
            data=[
                (i.label, k + 1, float(i.target[k]), *map(float, i.quantiles[:, k]), int(i.count[k]))
                for i in items
                for k in range(len(i.target))
            ],
            draw=_drawn_residuals(items, style, unit),
        )


def _drawn_residuals(items: list[Residuals], style: dict[str, Look], unit: str) -> Callable[[], Figure]:
    return lambda: draw_residuals(items, style, unit=unit)
