"""The numbers of scripts/benchmark noise: variances by stream, and what a claim costs, out of runs.

Intervals of deviations are chi-square ones, those of ratios of variances F ones: values are taken as normal. Runs of a
stream share all other seeds, those of `seed=1`, so that a stream's variance is that around this one seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, variance

from scipy import stats

from losslab.comparison.claim_cost import ClaimCost, Deviation, deviation_of, pooled
from losslab.comparison.durations import at_once, wall_seconds
from losslab.comparison.runs.run import Run
from losslab.comparison.twins import rms_of

LEVEL = 0.1
"""Intervals of the tables hold with probability 0.9."""
MARGIN = 0.01
WHOLE, INIT, ORDER, DROPOUT, TWIN = "whole seeds", "initial weights", "data order", "dropout", "twins (chaos)"
_STREAMS = {
    frozenset(): WHOLE,
    frozenset({"backbone_init", "head_init"}): INIT,
    frozenset({"data_order"}): ORDER,
    frozenset({"dropout"}): DROPOUT,
}
Values = Mapping[int, float]
"""Seed of what is varied, or number of the twin → a run's value."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Varied:
    """Runs of two losses in which one thing is varied."""

    what: str
    pairs: int
    std: float
    """Standard deviation of the first loss's values."""
    std_interval: Interval
    share: float
    """Its variance over that of whole seeds; NaN where there are none."""
    share_interval: Interval
    paired_std: float
    """Standard deviation of the second loss's value less the first's."""
    paired_interval: Interval
    left: float
    """Share of the variance of a difference that pairing leaves: 1 where it removes nothing."""
    left_interval: Interval


def by_source(runs: Sequence[Run], metric: str) -> dict[str, dict[int, float]]:
    """Sources of noise → seed of what is varied → value, of completed runs of one loss. Runs that vary more than one
    source are left out. The run with the seed 1 throughout is a member of each."""
    found: dict[str, dict[int, float]] = {}
    first: float | None = None
    for run in runs:
        value, own = run.value(metric), frozenset(name for name, _ in run.seed.own)
        if run.record.status != "completed" or value is None or own not in _STREAMS or (own and run.twin):
            continue
        if run.twin is not None:
            if run.seed == 1:
                found.setdefault(TWIN, {})[run.twin] = value
        elif not own:
            found.setdefault(WHOLE, {})[int(run.seed)] = value
            first = value if run.seed == 1 else first
        elif int(run.seed) == 1 and len(seeds := {seed for _, seed in run.seed.own}) == 1:
            found.setdefault(_STREAMS[own], {})[seeds.pop()] = value
    for source in found.keys() - {WHOLE}:
        if first is not None:
            found[source][0 if source == TWIN else 1] = first
    return found


def varied(first: Mapping[str, Values], second: Mapping[str, Values]) -> list[Varied]:
    """The table by source, whole seeds last.

    Args:
        first, second: of the two losses (`by_source`).
    """
    order = [*(source for source in (INIT, ORDER, DROPOUT, TWIN) if source in first), WHOLE]
    found = [
        _varied(source, first[source], second[source], first.get(WHOLE, {})) for source in order if source in first
    ]
    return [one for one in found if one is not None]


def _varied(source: str, first: Values, second: Values, whole: Values) -> Varied | None:
    shared = sorted(first.keys() & second.keys())
    if len(shared) < 2:
        return None
    one, other = [first[key] for key in shared], [second[key] for key in shared]
    differences = [b - a for a, b in zip(one, other, strict=True)]
    freedom = len(shared) - 1
    share, share_interval = math.nan, (math.nan, math.nan)
    if source != WHOLE and len(whole) > 1 and variance(whole.values()) > 0:
        share = variance(one) / variance(whole.values())
        share_interval = ratio_interval(share, freedom, len(whole) - 1)
    left, left_interval = left_by_pairing(one, other)
    return Varied(
        what=source,
        pairs=len(shared),
        std=math.sqrt(variance(one)),
        std_interval=_interval(one),
        share=share,
        share_interval=share_interval,
        paired_std=math.sqrt(variance(differences)),
        paired_interval=_interval(differences),
        left=left,
        left_interval=left_interval,
    )


def _interval(values: Sequence[float]) -> Interval:
    found = deviation_of(values)
    return (0.0, 0.0) if found is None else found.interval(LEVEL)


def ratio_interval(ratio: float, above: float, below: float, level: float = LEVEL) -> Interval:
    """The interval of a ratio of two independent variances, with these degrees of freedom."""
    low, high = stats.f.ppf([level / 2, 1 - level / 2], above, below)
    return float(ratio / high), float(ratio / low)


def left_by_pairing(one: Sequence[float], other: Sequence[float], level: float = LEVEL) -> tuple[float, Interval]:
    """Var(b − a) / (Var a + Var b), with its interval.

    With S = a + b and D = b − a it is 2 / (1 + Var S / Var D). S and D are independent where both variances agree, and
    their ratio then has an F distribution (Pitman 1939, doi 10.1093/biomet/31.1-2.9).
    """
    sums = variance([a + b for a, b in zip(one, other, strict=True)])
    differences = variance([b - a for a, b in zip(one, other, strict=True)])
    if differences == 0:
        return 0.0, (0.0, 0.0)
    low, high = ratio_interval(sums / differences, len(one) - 1, len(one) - 1, level)
    return 2 / (1 + sums / differences), (2 / (1 + high), 2 / (1 + low))


@dataclass(frozen=True)
class Claimed:
    """The cost of a claim about one loss against the baseline on one text."""

    text: str
    loss: str
    pairs: int
    difference: float
    """Mean of the loss's value less the baseline's."""
    paired: ClaimCost
    unpaired: ClaimCost
    """The same runs without their pairs: the variances of both losses add."""


@dataclass(frozen=True)
class Twins:
    """Chaos on one text."""

    text: str
    twins: int
    rms: float
    interval: Interval
    """Chi-square, of LEVEL."""


def claimed(text: str, losses: Mapping[str, Sequence[Run]], metric: str, margin: float = MARGIN) -> list[Claimed]:
    """The claims of a text.

    Args:
        losses: name → runs of it, the baseline's first. Losses with fewer than two pairs are left out.
    """
    baseline, *others = losses
    wholes = {name: by_source(runs, metric).get(WHOLE, {}) for name, runs in losses.items()}
    done = {name: [run for run in runs if run.record.status == "completed"] for name, runs in losses.items()}
    together = at_once([run for runs in done.values() for run in runs])
    seconds = {name: wall_seconds(runs) for name, runs in done.items()}
    found = []
    for name in others:
        shared = sorted(wholes[name].keys() & wholes[baseline].keys())
        differences = {seed: wholes[name][seed] - wholes[baseline][seed] for seed in shared}
        deviation = deviation_of(list(differences.values()))
        if deviation is None:
            continue
        both = [{seed: wholes[loss][seed] for seed in shared} for loss in (baseline, name)]
        own, base = seconds[name], seconds[baseline]
        a_pair = None if own is None or base is None else (own + base) / together
        found.append(
            Claimed(
                text=text,
                loss=name,
                pairs=len(shared),
                difference=mean(differences.values()),
                paired=ClaimCost(deviation=deviation, margin=margin, seconds_a_pair=a_pair),
                unpaired=ClaimCost(deviation=pooled(both), margin=margin, seconds_a_pair=a_pair, paired=False),
            )
        )
    return found


def twins(text: str, runs: Sequence[Run], metric: str) -> Twins | None:
    """The distance of two twins of one loss, of every seed that has some; None where none has."""
    families: dict[int, list[float]] = {}
    for run in runs:
        if run.record.status == "completed" and not run.seed.own and (value := run.value(metric)) is not None:
            families.setdefault(int(run.seed), []).append(value)
    several = [own for own in families.values() if len(own) > 1]
    if not several:
        return None
    rms, freedom = rms_of(several)
    return Twins(text, freedom, rms, Deviation(rms, freedom).interval(LEVEL) if rms else (0.0, 0.0))
