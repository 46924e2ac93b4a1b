"""Curves of a loss over its seeds: mean and spread at each step, and its value at equal compute."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.costs import NOTICEABLE, Costs
from losslab.comparison.metrics import Declarations
from losslab.comparison.runs.contenders import Contender
from losslab.comparison.runs.run import Run
from losslab.errors import UserError

GRADIENT_NORM, LOGIT_NORM = "grad_norm/all", "val/logit_norm"
RunCurves = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


@dataclass(frozen=True)
class MeanCurve:
    """Over seeds."""

    steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    """Standard deviation with n − 1; 0 where a single seed has a value."""
    n: int


def charted(declared: Declarations) -> list[str]:
    """Metrics that TensorBoard shows of each loss."""
    names = dict.fromkeys([declared.primary, *declared.shown("events")])
    return [*(f"val/{name}" for name in names), LOGIT_NORM, GRADIENT_NORM]


def drawn(declared: Declarations) -> list[str]:
    """Curves of the report beside the primary one; those on which verdicts are checked come first."""
    names = [name for name in declared.shown("curves") if name != declared.primary]
    return [f"val/{name}" for name in sorted(names, key=lambda name: "checked" not in declared[name].shown)]


def read_curves(runs: Sequence[Run], declared: Declarations) -> tuple[dict[int, RunCurves], list[str]]:
    """The curves of each run by its id(), and what could not be read."""
    wanted = {*charted(declared), *drawn(declared)}
    found: dict[int, RunCurves] = {}
    problems = []
    for run in runs:
        try:
            found[id(run)] = run.curves(wanted)
        except UserError as error:
            problems.append(str(error))
    return found, problems


def mean_curve(curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> MeanCurve:
    """Mean and standard deviation at every step that any of them has."""
    steps = np.unique(np.concatenate([steps for steps, _ in curves]))
    table = np.full((len(curves), len(steps)), np.nan)
    for row, (own, values) in zip(table, curves, strict=True):
        row[np.searchsorted(steps, own)] = np.where(np.isfinite(values), values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps at which no value is finite: they stay NaN
        mean, std = np.nanmean(table, axis=0), np.nanstd(table, axis=0, ddof=1)
    return MeanCurve(steps, mean, np.nan_to_num(std), len(curves))


def mean_curves(contender: Contender, read: dict[int, RunCurves]) -> dict[str, MeanCurve]:
    """Metric → its curve over the seeds of the chosen setting."""
    own = [read[id(run)] for _, run in sorted(contender.runs.items()) if id(run) in read]
    names = list(dict.fromkeys(name for curves in own for name in curves))
    return {name: mean_curve([curves[name] for curves in own if name in curves]) for name in names}


def at_equal_compute(
    contenders: Sequence[Contender], read: dict[int, RunCurves], costs: Costs | None, declared: Declarations
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Label → (share of its steps, [n] its seeds' primary metric on val) at the cost of the baseline's whole run (NaN
    before the first validation; a loss that costs less is at its own end by then): where costs are measured, or their
    FLOPs differ; else nothing."""
    if costs is None or not (costs.measured or max(costs.of.values()) > NOTICEABLE * min(costs.of.values())):
        return {}
    found, primary = {}, f"val/{declared.primary}"
    for c in contenders:
        own = [(run, read[id(run)]) for _, run in sorted(c.runs.items()) if primary in read.get(id(run), {})]
        if not own or c.label not in costs.of:
            continue
        share = min(1.0, 1.0 / costs.of[c.label])
        values = [np.interp(share * run.record.max_steps, *curves[primary], left=math.nan) for run, curves in own]
        found[c.label] = (share, np.array(values))
    return found
