"""Curves of a loss over its seeds: mean and spread at each step, and its value at equal training time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.groups import Contender
from losslab.comparison.load import Run
from losslab.comparison.tuning import tokens_of
from losslab.errors import UserError

GRADIENT_NORM, LOGIT_NORM, PRIMARY = "grad_norm/all", "val/logit_norm", "val/nll_scaled"
SHOWN = (PRIMARY, "val/nll", "val/nll_linked", "val/bits_per_byte", "val/top1", "val/scale", LOGIT_NORM, GRADIENT_NORM)
NOTICEABLE = 1.15
"""Losses whose speeds differ by less than this cost the same, as far as a busy machine can tell."""
RunCurves = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


@dataclass(frozen=True)
class MeanCurve:
    """Over seeds."""

    steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    """With n − 1; 0 where a single seed has a value."""
    n: int


def read_curves(runs: Sequence[Run]) -> tuple[dict[int, RunCurves], list[str]]:
    """The curves of each run by its id(), and what could not be read."""
    found: dict[int, RunCurves] = {}
    problems = []
    for run in runs:
        try:
            found[id(run)] = run.curves(SHOWN)
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


def speed_of(contender: Contender) -> float | None:
    """Tokens per second, the median over its runs; None where a record does not say."""
    speeds = [run.record.throughput.get("tokens_per_second") for run in contender.runs.values()]
    known = [speed for speed in speeds if speed]
    return median(known) if known and len(known) == len(speeds) else None


def at_equal_time(
    contenders: Sequence[Contender], read: dict[int, RunCurves]
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Label → (share of its steps, [n] its seeds' val/nll_scaled) when the quickest loss was done (NaN before its first
    validation): where losses cost noticeably different time, on equal machines; else nothing."""
    speeds = {c.label: speed_of(c) for c in contenders if c.runs}
    known = [speed for speed in speeds.values() if speed is not None]
    strata = {c.stratum for c in contenders}
    if len(known) < len(speeds) or len(known) < 2 or len(strata) > 1 or not on_equal_machines(contenders):
        return {}
    if max(known) < NOTICEABLE * min(known) or not _told_apart(contenders):
        return {}
    found = {}
    for c in contenders:
        own = [(run, read[id(run)]) for _, run in sorted(c.runs.items()) if PRIMARY in read.get(id(run), {})]
        if not own:
            continue
        share = (speeds[c.label] or 0.0) / max(known)
        values = [np.interp(share * run.record.max_steps, *curves[PRIMARY], left=math.nan) for run, curves in own]
        found[c.label] = (share, np.array(values))
    return found


def on_equal_machines(contenders: Sequence[Contender]) -> bool:
    """Whether all runs had the same kind of device and as many threads, so that their times can be compared."""
    used = [run.record.hardware for c in contenders for run in c.runs.values()]
    return len({(own.get("device_name") or own.get("device"), own.get("threads")) for own in used}) == 1


def _told_apart(contenders: Sequence[Contender]) -> bool:
    """Whether the slowest loss's runs were all slower than the quickest one's, at every setting: else it is the
    machine, and not the loss."""
    ranges = []
    for c in contenders:
        runs = [run for group in c.groups for run in group.runs.values()]
        own = [speed for run in runs if (speed := run.record.throughput.get("tokens_per_second"))]
        if own:
            ranges.append((min(own), max(own)))
    return min(high for _, high in ranges) < max(low for low, _ in ranges)


def seconds_per_step(contender: Contender) -> float | None:
    """Of training, validation included; the median over its runs."""
    speed, tokens = speed_of(contender), tokens_per_step(contender)
    return tokens / speed if speed and tokens else None


def flops_per_step(contender: Contender) -> float | None:
    """Of a forward and backward pass over the batch."""
    flops = [run.record.throughput.get("flops_per_token") for run in contender.runs.values()]
    tokens = tokens_per_step(contender)
    known = [value for value in flops if value]
    return median(known) * tokens if tokens and known and len(known) == len(flops) else None


def tokens_per_step(contender: Contender) -> float | None:
    for run in contender.runs.values():
        tokens = tokens_of(run)
        return tokens / run.record.max_steps if tokens else None
    return None
