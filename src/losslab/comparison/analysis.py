"""From runs to an answer: everything that a report says, as data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.caveats import caveats, start_caveats
from losslab.comparison.costs import Costs, costs_of
from losslab.comparison.curves import MeanCurve, at_equal_compute, mean_curves, read_curves
from losslab.comparison.kept_scores import read_scores
from losslab.comparison.metrics import NOT_METRICS, higher_is_better, is_known, margin_of, short
from losslab.comparison.metrics import PRIMARY as PRIMARY_NAME
from losslab.comparison.noise import Noises
from losslab.comparison.pairs import Pair, make_pairs
from losslab.comparison.rows import Row, make_rows
from losslab.comparison.runs.contenders import Contender, Setting, find_baselines, group_runs
from losslab.comparison.runs.load import Loaded, Run
from losslab.comparison.runs.naming import BEST_FIRST, parse_labels, positions, rename
from losslab.comparison.tuning import Axis, Expected, axes_of, choose, expected_best, validation_of
from losslab.config.nearest import nearest
from losslab.errors import UserError

PRIMARY = "test/nll_scaled"
_CHECKED = ("test/nll", "test/top1", "text/nll", "text/top1")
"""On these a verdict of the primary number should hold, too."""


@dataclass(frozen=True)
class Comparison:
    """All that is said of a folder of runs."""

    source: Path
    asked: tuple[str, ...]
    """What was asked for beyond the runs, the baseline and the metric: a filter, other ways to tune."""
    metric: str
    selection: str | None
    """The validation metric by which each loss took its setting."""
    margin: float | None
    contenders: list[Contender]
    baselines: dict[Setting, Contender]
    rows: list[Row]
    also: dict[str, list[Row]]
    """The same for every other metric."""
    pairs: list[Pair] | None
    """Every loss beside every other one, where that was asked for."""
    caveats: list[str]
    curves: dict[str, dict[str, MeanCurve]]
    """Label → metric → over seeds."""
    costs: Costs | None
    """Of a step under each loss."""
    equal_time: dict[str, tuple[float, NDArray[np.float64]]]
    """Label → share of its steps and values of its seeds at the cost of the baseline's whole run."""
    axes: list[Axis]
    expected: list[Expected]
    noises: dict[str, dict[str, Noises]]
    """Label → metric → intervals over documents, seeds and both."""
    unit: str
    """What the documents are: document or window."""
    reliability: dict[str, NDArray[np.float64]]
    """Label → [seeds, 2, 3, 15]."""
    metrics: tuple[str, ...]
    """Those of the table; the first is `metric`."""

    @property
    def baseline(self) -> str:
        """Its name in sentences: of several strata, the loss's."""
        found = list(self.baselines.values())
        return found[0].label if len(found) == 1 else found[0].loss

    def margin_of(self, metric: str) -> float | None:
        """A difference below it counts as none."""
        return self.margin if metric == self.metric else margin_of(metric)

    @property
    def runs(self) -> list[Run]:
        return [run for contender in self.contenders for run in contender.tried]

    @property
    def checked(self) -> dict[str, list[Row]]:
        """The metrics on which the verdicts should hold, too."""
        return {name: self.also[name] for name in _CHECKED if name in self.also}

    @property
    def tables(self) -> dict[str, list[Row]]:
        """Those of the answer."""
        return {name: self.rows if name == self.metric else self.also[name] for name in self.metrics}


def analyse(
    loaded: Loaded,
    *,
    baseline: str = "cross_entropy",
    metric: str = PRIMARY,
    margin: float | None = None,
    tune: str = "auto",
    mixed: bool = False,
    all_pairs: bool = False,
    further: Sequence[str] = (),
    labels: Sequence[str] = (),
    order: str = BEST_FIRST,
) -> Comparison:
    """Group, choose, pair and judge.

    Args:
        all_pairs: compare every loss with every other one, too.
        further: more metrics for the table; settings are chosen for `metric`.
        labels, order: as in `naming.parse_labels` and `naming.positions`.
        margin: a difference below it counts as none; None: what is customary for the metric.
        tune, mixed: as in `groups.group_runs`.

    Raises:
        UserError: when the runs do not belong together, nothing is completed, or there is no such baseline or metric.
    """
    runs = loaded.runs
    metric, *further = (_sided(_known(name, runs)) for name in (metric, *further))
    selection = validation_of(metric, runs)
    if selection is None and tune not in ("auto", "none"):
        raise UserError(
            f"--tune {tune}: settings are chosen on validation, and these runs have no val/{short(metric)}; "
            "--tune none keeps each setting apart"
        )
    contenders = group_runs(runs, tune="none" if selection is None else tune, mixed=mixed)
    called = parse_labels(labels, [c.label for c in contenders])
    baselines = find_baselines(contenders, {new: old for old, new in called.items()}.get(baseline, baseline))
    rename(contenders, called)
    places = positions(order, contenders, called)
    if places is not None:
        contenders.sort(key=lambda c: places[c.label])
    if selection is not None:
        choose(contenders, selection)
    margin = margin_of(metric) if margin is None else margin
    rows = make_rows(contenders, baselines, metric=metric, margin=margin)
    also = {
        name: make_rows(contenders, baselines, metric=name, margin=margin_of(name))
        for name in dict.fromkeys([*further, *_others(contenders, metric)])
        if name != metric
    }
    if places is not None:
        for table in (rows, *also.values()):
            table.sort(key=lambda row: places[row.label])
    costs = costs_of(contenders, next(iter(baselines.values())), loaded.source) if len(baselines) == 1 else None
    read, problems = read_curves([run for c in contenders for run in c.runs.values()])
    kept = read_scores(contenders, baselines, {metric: rows, **also})
    told = caveats(contenders, rows, baselines, metric=metric, selection=selection)
    return Comparison(
        source=loaded.source,
        asked=(*loaded.asked, *_asked(tune, mixed)),
        metric=metric,
        selection=selection,
        margin=margin,
        contenders=contenders,
        baselines=baselines,
        rows=rows,
        also=also,
        pairs=make_pairs(contenders, metric=metric, margin=margin) if all_pairs else None,
        caveats=[*start_caveats(contenders, baselines), *loaded.problems, *told, *problems, *kept.problems],
        curves={c.label: curves for c in contenders if (curves := mean_curves(c, read))},
        costs=costs,
        equal_time=at_equal_compute(contenders, read, costs) if short(metric) == PRIMARY_NAME else {},
        axes=[axis for c in contenders if selection for axis in axes_of(c, selection)],
        expected=_expected(contenders, selection),
        noises=kept.noises,
        unit=kept.unit,
        reliability=kept.reliability,
        metrics=tuple(dict.fromkeys([metric, *further])),
    )


def _sided(metric: str) -> str:
    """The metric, if its name says which side is better."""
    if not is_known(metric):
        raise UserError(
            f"is more of {metric!r} better, or less? Its name does not say: call it {metric}_score or {metric}_error"
        )
    return metric


def _asked(tune: str, mixed: bool) -> list[str]:
    told = {"none": "no tuning, every setting is a row", "all": "each loss's best over every setting"}
    found = [] if tune == "auto" else [told.get(tune, f"each loss's best over {tune}")]
    return [
        *found,
        *(
            ["runs of several data, budgets or precisions, each kind on its own, and pairs across versions of the code"]
            if mixed
            else []
        ),
    ]


def _known(metric: str, runs: Sequence[Run]) -> str:
    """The metric, if a run has it; of a table with a single metric, that one."""
    finished = [run.record.metrics.get("best", {}) for run in runs if run.record.status == "completed"]
    known = {key for best in finished for key, value in best.items() if value is not None and key != "step"}
    if known and short(metric) in NOT_METRICS:
        raise UserError(f"{metric} does not say which loss is better; choose from {', '.join(_compared(known))}")
    if metric in known:
        return metric
    if any(metric in best for best in finished):
        raise UserError(f"{metric} is not finite in any of these runs; choose another --metric")
    if finished and not known:
        raise UserError(f"the records of these {len(finished)} completed run(s) hold no metric that is finite")
    if not known:
        states: dict[str, int] = {}
        for run in runs:
            states[f"{run.loss}: {{}} {run.record.status}"] = states.get(f"{run.loss}: {{}} {run.record.status}", 0) + 1
        told = "; ".join(text.format(count) for text, count in sorted(states.items()))
        over = all(run.record.status == "diverged" for run in runs)
        then = "diverged runs are results, and stay" if over else "the command that started them continues them"
        raise UserError(f"no run is completed yet ({told}); {then}")
    if metric == PRIMARY and len(known) == 1 and all(run.folder is None for run in runs):
        return next(iter(known))
    hint = f"did you mean 'test/{metric}'?" if f"test/{metric}" in known else nearest(metric, _compared(known))
    raise UserError(f"no run has the metric {metric!r}; choose another --metric: {hint}")


def _compared(known: Iterable[str]) -> list[str]:
    return sorted(name for name in known if short(name) not in NOT_METRICS)


def _others(contenders: Sequence[Contender], metric: str) -> list[str]:
    """The other metrics of test (of a table, of all), in the order in which records hold them."""
    names: dict[str, None] = {}
    for c in contenders:
        for run in c.runs.values():
            names |= dict.fromkeys(run.record.metrics.get("best", {}))
    of_folder = metric.startswith(("test/", "text/", "val/"))
    return [
        name
        for name in sorted(names)
        if name != metric
        and short(name) not in NOT_METRICS
        and is_known(name)
        and (name.startswith(("test/", "text/")) or not of_folder)
    ]


def _expected(contenders: Sequence[Contender], selection: str | None) -> list[Expected]:
    if selection is None:
        return []
    values = [value for c in contenders for run in c.tried if (value := run.best(selection)) is not None]
    if not values:
        return []
    worst = min(values) if higher_is_better(selection) else max(values)
    found = [item for c in contenders if (item := expected_best(c, selection, worst=worst)) is not None]
    if all(item.cost[0] > 1 for item in found):
        return found
    return [replace(item, cost=item.trials.astype(np.float64)) for item in found]  # or the axis would mix two units
