"""Declaration of one metric: its name, its words, its unit, its better side."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from losslab.errors import UserError

PLACES = {
    "terminal": "the table at the end of a run and of `losslab evaluate`",
    "events": "TensorBoard: the HParams tab, the series best/…, and the charts of `losslab compare`",
    "curves": "the curves of the report",
    "frequency": "the report's figure of differences on frequent and rare tokens",
    "checked": "the report's sentences on whether a verdict on the primary metric holds elsewhere",
    "per_text": "no place: a value of the text whatever its tokens are, which tokenizers therefore share",
}
"""Tag → the place that shows the metrics that carry it. The first three show the primary metric without a tag."""


AVERAGED = "ema/"
"""Begins the names of metrics of averaged weights: `test/ema/nll_scaled`."""


class Metric(NamedTuple):
    """One metric, as a task declares it (`task.metrics`) and as the record keeps it (`metrics_info`)."""

    name: str
    """Key in metrics.csv and run.json, without its split: `nll_scaled` of `test/nll_scaled`."""
    label: str
    """Words for figures and sentences: `top-1 accuracy`."""
    unit: str
    """Unit of the values, `nats per token` or `cm`; empty where there is none."""
    higher_is_better: bool | None
    """Better side. None declares a diagnosis: neither side is better, and no verdict is given."""
    margin: float | None = None
    """Difference, in the unit of the values, below which two values are customarily taken as equal. None: no custom."""
    shown: frozenset[str] = frozenset()
    """Tags out of `PLACES`."""
    signature: str = ""
    """How it was computed, where that is no matter of course, such as sacrebleu's signature. Runs whose signatures
    differ are not compared. Empty: there is one way."""


_PLAIN = ("label", "unit", "higher_is_better", "margin")
"""Fields between the name and the tags."""
_SIGNATURE = "signature"
"""A key of those metrics alone that have one."""


def to_info(metrics: Sequence[Metric], primary: str) -> dict[str, dict[str, Any]]:
    """A task's declarations as a record keeps them: plain values by name.

    Raises:
        UserError: when two metrics share a name, a name or a tag cannot be, or the primary metric is not among them or
            has no better side.
    """
    by_name = {metric.name: metric for metric in metrics}
    names = [metric.name for metric in metrics]
    if len(by_name) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"task: it declares the metric {twice!r} twice")
    for metric in metrics:
        if not metric.name or "/" in metric.name.removeprefix(AVERAGED) or metric.name == "step":
            raise UserError(
                f"task: {metric.name!r} cannot name a metric: no slash (val/ and test/ come before), no step"
            )
        if unknown := sorted(metric.shown - PLACES.keys()):
            raise UserError(f"task: its metric {metric.name} has the tag {unknown[0]!r}; there are {', '.join(PLACES)}")
    if primary not in by_name:
        raise UserError(f"task: its primary metric {primary!r} is not among its metrics: {', '.join(by_name)}")
    if by_name[primary].higher_is_better is None:
        raise UserError(f"task: its primary metric {primary!r} needs a better side: higher_is_better=True or False")
    return {
        name: {
            **{key: getattr(metric, key) for key in _PLAIN},
            "shown": sorted(metric.shown),
            **({_SIGNATURE: metric.signature} if metric.signature else {}),
        }
        for name, metric in by_name.items()
    }


def from_info(info: Mapping[str, Mapping[str, Any]]) -> dict[str, Metric]:
    """The declarations that a record keeps."""
    return {
        name: Metric(
            name=name,
            **{key: entry[key] for key in _PLAIN},
            shown=frozenset(entry["shown"]),
            signature=entry.get(_SIGNATURE, ""),
        )
        for name, entry in info.items()
    }


def is_info(info: Mapping[str, Any], primary: str) -> bool:
    """Whether plain values declare each metric wholly, and the primary one with a side; no values at all may stand."""
    if not all(isinstance(entry, dict) and _is_entry(entry) for entry in info.values()):
        return False
    return not info or (primary in info and info[primary]["higher_is_better"] is not None)


def _is_entry(entry: Mapping[str, Any]) -> bool:
    if not {*_PLAIN, "shown"} <= entry.keys():
        return False
    margin, shown = entry["margin"], entry["shown"]
    number = isinstance(margin, int | float) and not isinstance(margin, bool) and abs(margin) < sys.float_info.max
    return (
        isinstance(entry["label"], str)
        and isinstance(entry["unit"], str)
        and isinstance(entry["higher_is_better"], bool | None)
        and (margin is None or number)
        and isinstance(shown, list)
        and all(isinstance(tag, str) for tag in shown)
        and isinstance(entry.get(_SIGNATURE, ""), str)
    )


def better(metric: Metric, value: float, other: float) -> bool:
    """Whether a value is better than another, by the side of the metric. Any number is better than NaN, and NaN than
    nothing: what is not defined at one validation must not stay the best for good."""
    if math.isnan(other):
        return not math.isnan(value)
    return value > other if metric.higher_is_better else value < other
