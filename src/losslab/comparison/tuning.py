"""Fair tuning: each loss takes its best setting on validation, out of equally many; and what that cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.metrics import Declarations
from losslab.comparison.runs.contenders import Contender, Group, Setting, order, shown, spell
from losslab.comparison.runs.run import Run
from losslab.comparison.searches import searches_of

_ENDED = ("completed", "diverged", "failed", "pruned")


@dataclass(frozen=True)
class Tried:
    """One value of an axis: over seeds, at the best of the other axes."""

    value: Any
    mean: float
    """NaN where nothing completed."""
    std: float
    missing: str
    """`1 diverged, 2 failed`: what has no result there; or nothing."""


@dataclass(frozen=True)
class Axis:
    """A loss over the values of what it was tuned over."""

    label: str
    key: str
    tried: tuple[Tried, ...]
    best: int
    """Index of the chosen value."""

    @property
    def on_edge(self) -> bool:
        """The best number is the smallest or the largest: a better one may lie beyond."""
        numbers = all(isinstance(tried.value, int | float) for tried in self.tried)
        found = not math.isnan(self.tried[self.best].mean)
        inside = 0 < self.best < len(self.tried) - 1
        nothing_below = self.best == 0 and self.tried[0].value == 0  # no dropout, say
        return numbers and found and len(self.tried) > 1 and not inside and not nothing_below


@dataclass(frozen=True)
class Expected:
    """Expected best validation after n of N settings, drawn without replacement (Dodge et al. 2019, arXiv 1909.03004,
    in the unbiased form of Tang et al. 2020, arXiv 2004.13705)."""

    label: str
    trials: NDArray[np.int64]
    cost: NDArray[np.float64]
    """FLOPs of that many trials; the number of trials where a record lacks them."""
    mean: NDArray[np.float64]
    """Over seeds."""
    std: NDArray[np.float64]
    seeds: int


def validation_of(metric: str, runs: Sequence[Run]) -> str | None:
    """`test/top1` → `val/top1`, where runs have it: by what each loss's setting is chosen."""
    name = f"val/{metric.rpartition('/')[2]}"
    return name if any(run.value(name) is not None for run in runs) else None


def choose(contenders: Sequence[Contender], metric: str, declared: Declarations) -> None:
    """Give each contender its best setting by the mean of `metric`, on validation, over the seeds that its settings
    share. A setting that lost runs to divergence or failure comes after those that lost fewer. A loss without any value
    of the metric is tuned by the primary one."""
    for contender in contenders:
        by = metric if _is_known(contender, metric) else fallback(declared)
        higher, shared = declared.higher_is_better(by), shared_seeds(contender, by)
        ranks = [_rank(group, by, shared, higher) for group in contender.groups]
        contender.chosen = contender.groups[ranks.index(min(ranks))]


def fallback(declared: Declarations) -> str:
    """The metric by which settings are chosen where a loss lacks the one by which the others are tuned."""
    return f"val/{declared.primary}"


def shared_seeds(contender: Contender, metric: str) -> set[int]:
    """Seeds with a value at every setting that lost none; settings of which too few runs are there yet do not count."""
    seeds = [set(_values(group, metric)) for group in contender.groups if not _lost(group)]
    return set.intersection(*(own for own in seeds if own)) if any(seeds) else set()


def _is_known(contender: Contender, metric: str) -> bool:
    return any(_values(group, metric) for group in contender.groups)


def _rank(group: Group, metric: str, shared: set[int], higher_is_better: bool) -> tuple[bool, int, float]:
    values = _values(group, metric)
    counting = [value for seed, value in values.items() if seed in shared] or list(values.values())
    mean = float(np.mean(counting)) if counting else math.inf
    return (not counting, _lost(group), -mean if higher_is_better and counting else mean)


def _lost(group: Group) -> int:
    return group.counts["diverged"] + group.counts["failed"]


def _values(group: Group, metric: str) -> dict[int, float]:
    return {seed: value for seed, run in sorted(group.runs.items()) if (value := run.value(metric)) is not None}


def axes_of(contender: Contender, metric: str, declared: Declarations) -> list[Axis]:
    """Each axis that the contender was tuned over, at the best of the others."""
    found = []
    shared, higher = shared_seeds(contender, metric), declared.higher_is_better(metric)
    for place, (key, chosen) in enumerate(contender.chosen.setting):
        values = sorted({group.setting[place][1] for group in contender.groups}, key=order)
        if len(values) < 2:
            continue
        tried = []
        for value in values:
            own = [group for group in contender.groups if group.setting[place][1] == value]
            best = min(own, key=lambda group: _rank(group, metric, shared, higher))
            got = list(_values(best, metric).values())
            counts = best.counts
            tried.append(
                Tried(
                    value=value,
                    mean=float(np.mean(got)) if got else math.nan,
                    std=float(np.std(got, ddof=1)) if len(got) > 1 else math.nan,
                    missing=", ".join(f"{counts[status]} {status}" for status in sorted(counts)),
                )
            )
        found.append(Axis(contender.label, key, tuple(tried), values.index(chosen)))
    return found


def budget_of(contender: Contender) -> dict[Setting, int]:
    """Setting → how many runs were started with it."""
    return {group.setting: len(group.runs) + group.repeated + len(group.others) for group in contender.groups}


def expected_best(contender: Contender, metric: str, *, worst: float, higher_is_better: bool) -> Expected | None:
    """Expected value of the best of n settings; None with a single setting.

    Args:
        worst: what a run without a result counts as.
    """
    count = len(contender.groups)
    # A seed that was not tried at every setting is no draw of settings.
    ended = [
        {run.seed for run in (*group.runs.values(), *group.others) if run.record.status in _ENDED}
        for group in contender.groups
    ]
    seeds = sorted(set.intersection(*ended))
    if count < 2 or not seeds or not _is_known(contender, metric):
        return None
    sign = 1.0 if higher_is_better else -1.0
    rows = []
    for seed in seeds:
        runs = [group.runs.get(seed) for group in contender.groups]
        values = [worst if run is None or (value := run.value(metric)) is None else value for run in runs]
        rows.append(sign * expected_maximum(sign * np.array(values)))
    table = np.array(rows)
    trials = np.arange(1, count + 1)
    flops = [value for run in contender.tried if (value := _flops(run)) is not None]
    return Expected(
        label=contender.label,
        trials=trials,
        cost=trials.astype(np.float64) * (float(np.median(flops)) if flops else 1.0),
        mean=table.mean(axis=0),
        std=table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros(count),
        seeds=len(seeds),
    )


def expected_maximum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N]: of n = 1 … N of these values drawn without replacement, the expected largest."""
    ordered, count = np.sort(values), len(values)
    return np.array(
        [
            sum(ordered[i - 1] * math.comb(i - 1, n - 1) for i in range(n, count + 1)) / math.comb(count, n)
            for n in range(1, count + 1)
        ]
    )


def _unequal_seeds(contender: Contender) -> list[str]:
    whole = [group for group in contender.groups if not group.counts["pruned"]]  # a pruned trial trains one seed
    sizes = {shown(group.setting): len(group.runs) + len(group.others) for group in whole}
    if len(set(sizes.values())) < 2:
        return []
    told = ", ".join(f"{setting}: {size}" for setting, size in sizes.items())
    return [
        f"{contender.label}: unequal numbers of runs at its settings ({told}); it was tuned on the seeds that they "
        "share"
    ]


def tokens_of(run: Run) -> float | None:
    """The number of tokens (or of other positions) on which the whole run trains; older records are of
    windows as long as the context."""
    size, length = run.settings.get("data.batch_size"), run.record.provenance.get("positions_per_sample")
    size = run.record.provenance.get("samples_per_step", size)
    length = run.settings.get("model.context") if length is None else length
    steps = run.record.max_steps
    if not (isinstance(size, int | float) and isinstance(length, int | float) and steps):
        return None
    return float(steps * size * length)


def _flops(run: Run) -> float | None:
    of_token, tokens = run.record.throughput.get("flops_per_token"), tokens_of(run)
    return of_token * tokens if of_token and tokens else None


def tuning_caveats(contenders: Sequence[Contender], metric: str, declared: Declarations) -> list[str]:
    """Reasons why the choice of settings is less than fair, a sentence each."""
    found = []
    for contender in contenders:
        for axis in axes_of(contender, metric, declared):
            if axis.on_edge:
                side = "smallest" if axis.best == 0 else "largest"
                name = axis.key.rpartition(".")[2]
                found.append(
                    f"{contender.label}: the best {name} is the {side} that was tried "
                    f"({spell(axis.tried[axis.best].value)}); try beyond it before you believe its row"
                )
        found += _unequal_seeds(contender)
        if len(contender.groups) > 1 and contender.runs and not _is_known(contender, metric):
            by = fallback(declared)
            found.append(f"{contender.label}: no {metric} at any setting; its setting is the best by {by}")
    return found + _unequal_budgets(contenders)


def _unequal_budgets(contenders: Sequence[Contender]) -> list[str]:
    if (searches := searches_of(contenders)) is not None:
        return (
            []
            if searches.are_equal
            else [f"the losses were searched with unequal budgets: {searches}; more trials find more"]
        )
    budgets = {contender.label: budget_of(contender) for contender in contenders}
    if len({tuple(sorted(map(str, budget.items()))) for budget in budgets.values()}) < 2:
        return []
    if len({(len(budget), sum(budget.values())) for budget in budgets.values()}) > 1:
        told = ", ".join(f"{label} {_size(budget)}" for label, budget in budgets.items())
        why = "more trials find more"
    else:
        told = "; ".join(f"{label} {_listed(budget)}" for label, budget in budgets.items())
        why = "a difference may be one of settings, not of losses"
    return [f"the losses were not tuned over the same settings and seeds: {told}; {why}"]


def _size(budget: dict[Setting, int]) -> str:
    settings, runs = len(budget), sum(budget.values())
    return f"{settings} setting{'s' * (settings != 1)} and {runs} run{'s' * (runs != 1)}"


def _listed(budget: dict[Setting, int]) -> str:
    return ", ".join(f"{shown(setting)} ({runs} run{'s' * (runs != 1)})" for setting, runs in budget.items())


def describe_choice(contender: Contender) -> str:
    """`lr=0.003`: the chosen setting, where settings vary and the loss has a result."""
    return shown(contender.chosen.setting) if contender.runs else ""
