"""The way from runs to an answer: everything that a report says, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.asked import choose_metrics, other_metrics
from losslab.comparison.by_class import ByClass
from losslab.comparison.caveats import caveats, start_caveats
from losslab.comparison.claims import Claims, make_claims
from losslab.comparison.costs import Costs, costs_of
from losslab.comparison.curves import MeanCurve, at_equal_compute, mean_curves, read_curves
from losslab.comparison.growing import Growing
from losslab.comparison.grown import grown_caveats
from losslab.comparison.kept_scores import read_scores
from losslab.comparison.metrics import Declarations, short
from losslab.comparison.noise import Noises
from losslab.comparison.pairs import Pair, make_pairs
from losslab.comparison.residuals import Residuals
from losslab.comparison.rows import Row, make_rows
from losslab.comparison.runs.contenders import Contender, Setting, find_baselines, group_runs
from losslab.comparison.runs.load import Loaded
from losslab.comparison.runs.naming import BEST_FIRST, parse_labels, positions, rename
from losslab.comparison.runs.run import BEST, Run
from losslab.comparison.tuning import Axis, Expected, axes_of, choose, expected_best, validation_of
from losslab.comparison.twins import Chaos, chaos_of
from losslab.errors import UserError

BASELINE = "cross_entropy"


@dataclass(frozen=True)
class Comparison:
    """All that is said of a folder of runs."""

    source: Path
    asked: tuple[str, ...]
    """Requests beyond the runs, the baseline and the metric: a filter, other ways to tune."""
    metric: str
    selection: str | None
    """The validation metric by which each loss took its setting."""
    margin: float | None
    contenders: list[Contender]
    baselines: dict[Setting, Contender]
    rows: list[Row]
    also: dict[str, list[Row]]
    """The same for every other metric."""
    claims: Claims | None
    """The cost of finding a difference of the margin; None without a margin or a spread."""
    pairs: list[Pair] | None
    """Every loss beside every other one, where that was asked for."""
    caveats: list[str]
    curves: dict[str, dict[str, MeanCurve]]
    """Label → metric → over seeds."""
    costs: Costs | None
    """Costs of a step under each loss."""
    equal_time: dict[str, tuple[float, NDArray[np.float64]]]
    """Label → share of its steps and values of its seeds at the cost of the baseline's whole run."""
    axes: list[Axis]
    expected: list[Expected]
    noises: dict[str, dict[str, Noises]]
    """Label → metric → intervals over documents, seeds and both."""
    unit: str
    """The name of a unit: document or window."""
    reliability: dict[str, NDArray[np.float64]]
    """Label → [seeds, 2, 3, 15]."""
    classes: ByClass | None
    entities: ByClass | None
    """The same for types of entities."""
    residuals: list[Residuals]
    metrics: tuple[str, ...]
    """Metrics of the table; the first is `metric`."""
    declared: Declarations
    """Declarations of each metric in the records."""
    weights: str
    """The weights that are compared (`Run.weights`)."""
    growing: Growing | None
    """The sweep, where it added seeds until losses were decided: intervals are its repeated ones."""
    chaos: list[Chaos]
    """Distances between twins, of each loss that has some."""

    @property
    def baseline(self) -> str:
        """Its name in sentences: of several strata, the loss's."""
        found = list(self.baselines.values())
        return found[0].label if len(found) == 1 else found[0].loss

    @property
    def kind_of_interval(self) -> str:
        """The word that tells the table's intervals from plain ones."""
        return "simultaneous" if self.growing is None else "repeated"

    @property
    def when(self) -> str:
        """` at the last step`, for sentences about metrics of those weights; nothing for the best checkpoints."""
        return "" if self.weights == BEST else " at the last step"

    def margin_of(self, metric: str) -> float | None:
        """A difference below it counts as none."""
        return self.margin if metric == self.metric else self.declared[metric].margin

    @property
    def runs(self) -> list[Run]:
        return [run for contender in self.contenders for run in contender.tried]

    @property
    def checked(self) -> dict[str, list[Row]]:
        """The metrics on which the verdicts should hold, too."""
        names = [f"{split}/{name}" for split in ("test", "text") for name in self.declared.shown("checked")]
        return {name: self.also[name] for name in names if name in self.also}

    @property
    def tables(self) -> dict[str, list[Row]]:
        """Tables of the answer."""
        return {name: self.rows if name == self.metric else self.also[name] for name in self.metrics}


def analyse(
    loaded: Loaded,
    *,
    baseline: str | None = None,
    metric: str | None = None,
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
        baseline: a loss's name or label; None: that of a sweep which added seeds until losses were decided, else
            cross_entropy.
        all_pairs: compare every loss with every other one, too.
        metric: by which losses are judged; None: the primary one of test.
        further: more metrics for the table; settings are chosen for `metric`.
        labels, order: as in `naming.parse_labels` and `naming.positions`.
        margin: a difference below it counts as none; None: that by which such a sweep decided, else what is customary
            for the metric.
        tune, mixed: as in `groups.group_runs`.

    Raises:
        UserError: when the runs do not belong together, nothing is completed, or there is no such baseline or metric.
    """
    runs, growing = loaded.runs, loaded.growing
    declared = Declarations.of(runs)
    metric, *further = choose_metrics([metric or f"test/{declared.primary}", *further], runs, declared)
    selection = validation_of(metric, runs)
    if selection is None and tune not in ("auto", "none"):
        raise UserError(
            f"--tune {tune}: settings are chosen on validation, and these runs have no val/{short(metric)}; "
            "--tune none keeps each setting apart"
        )
    contenders = group_runs(runs, tune="none" if selection is None else tune, mixed=mixed)
    if baseline is None:
        of_sweep = None if growing is None else growing.baseline_among(contenders)
        baseline = of_sweep or BASELINE
    called = parse_labels(labels, [c.label for c in contenders])
    baselines = find_baselines(contenders, {new: old for old, new in called.items()}.get(baseline, baseline))
    rename(contenders, called)
    places = positions(order, contenders, called)
    if places is not None:
        contenders.sort(key=lambda c: places[c.label])
    if selection is not None:
        choose(contenders, selection, declared)
    if margin is None:
        decided_by = None if growing is None else growing.margin_of(metric)
        margin = decided_by or declared[metric].margin
    rows = make_rows(contenders, baselines, metric=metric, margin=margin, declared=declared, growing=growing)
    also = {
        name: make_rows(
            contenders, baselines, metric=name, margin=declared[name].margin, declared=declared, growing=growing
        )
        for name in dict.fromkeys([*further, *other_metrics(contenders, metric, declared)])
        if name != metric
    }
    if places is not None:
        for table in (rows, *also.values()):
            table.sort(key=lambda row: places[row.label])
    costs = costs_of(contenders, next(iter(baselines.values())), loaded.source) if len(baselines) == 1 else None
    read, problems = read_curves([run for c in contenders for run in c.runs.values()], declared)
    kept = read_scores(contenders, baselines, {metric: rows, **also})
    told = caveats(
        contenders, rows, baselines, metric=metric, selection=selection, declared=declared, weights=loaded.weights,
        source=loaded.source, growing=growing,
    )  # fmt: skip
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
        claims=None if growing is not None else make_claims(rows, contenders, baselines, margin=margin),
        pairs=make_pairs(contenders, metric=metric, margin=margin, declared=declared, growing=growing)
        if all_pairs
        else None,
        caveats=[
            *start_caveats(contenders, baselines),
            *loaded.problems,
            *(grown_caveats(contenders, baselines) if growing is None else []),
            *told,
            *problems,
            *kept.problems,
        ],
        curves={c.label: curves for c in contenders if (curves := mean_curves(c, read))},
        costs=costs,
        equal_time=at_equal_compute(contenders, read, costs, declared) if short(metric) == declared.primary else {},
        axes=[axis for c in contenders if selection for axis in axes_of(c, selection, declared)],
        expected=_expected(contenders, selection, declared),
        noises=kept.noises,
        unit=kept.unit,
        reliability=kept.reliability,
        classes=kept.classes,
        entities=kept.entities,
        residuals=kept.residuals,
        metrics=tuple(dict.fromkeys([metric, *further])),
        declared=declared,
        weights=loaded.weights,
        growing=growing,
        chaos=[found for c in contenders if (found := chaos_of(c, metric)) is not None],
    )


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


def _expected(contenders: Sequence[Contender], selection: str | None, declared: Declarations) -> list[Expected]:
    if selection is None:
        return []
    values = [value for c in contenders for run in c.tried if (value := run.value(selection)) is not None]
    if not values:
        return []
    higher = declared.higher_is_better(selection)
    worst = min(values) if higher else max(values)
    found = [
        item
        for c in contenders
        if (item := expected_best(c, selection, worst=worst, higher_is_better=higher)) is not None
    ]
    if all(item.cost[0] > 1 for item in found):
        return found
    return [replace(item, cost=item.trials.astype(np.float64)) for item in found]  # or the axis would mix two units
