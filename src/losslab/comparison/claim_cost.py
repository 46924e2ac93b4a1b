"""The cost of a claim: seeds and seconds until a difference of a margin is found, from paired differences.

Seeds follow from the exact power of the two-sided paired t test (the noncentral t distribution). A deviation of few
seeds is uncertain, and seeds grow with its square: a chi-square interval goes with every number, and below ENOUGH
degrees of freedom it stands alone. The difference that a pilot saw counts nowhere, and so cannot flatter the plan; only
`seeds_needed` goes by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import special

from losslab.comparison.simultaneous import LEVEL
from losslab.comparison.statistics import POWER, SEEDS_FOR_A_CLAIM, Paired, power_of_t

Key = TypeVar("Key", bound=Hashable)
ENOUGH = 6
"""Degrees of freedom from which on a deviation makes a single number; eight seeds of one loss have seven."""
CONFIDENCE = 0.8
"""The share of pilots in which the true deviation is at most the one that a plan takes."""
_ALIKE = 0.25
"""Bartlett's p above which deviations are pooled (Bancroft 1964, doi 10.2307/2527909)."""
MOST_SEEDS = 1000
"""Seeds beyond which `seeds_needed` gives no number."""
_LARGE = 10_000
"""Seeds from which on the t test is a z test to within one seed."""


@dataclass(frozen=True)
class Deviation:
    """A standard deviation, and the degrees of freedom on which it rests."""

    std: float
    df: float

    @property
    def is_enough(self) -> bool:
        """Whether it makes a single number; below, only its interval is worth saying."""
        return self.df >= ENOUGH

    def upper(self, confidence: float = CONFIDENCE) -> float:
        """The limit that the true deviation does not exceed, with this confidence."""
        return self.std * math.sqrt(self.df / float(special.chdtri(self.df, confidence)))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The chi-square interval, with probability 1 − level."""
        return self.upper(level / 2), self.upper(1 - level / 2)


def deviation_of(values: Sequence[float]) -> Deviation | None:
    """The deviation of independent values; None below two, and of equal ones."""
    std = float(np.std(np.asarray(values, dtype=np.float64), ddof=1)) if len(values) > 1 else 0.0
    return Deviation(std, len(values) - 1) if std > 0 else None


def deviations_of(differences: Mapping[Key, Mapping[int, float]]) -> dict[Key, Deviation]:
    """The deviation of each loss's paired differences: one for all where they agree, else each loss's own.

    Args:
        differences: loss → seed → paired difference. Losses of one seed, or without any spread, are left out.
    """
    own = {key: found for key, shared in differences.items() if (found := deviation_of(list(shared.values())))}
    if len(own) < 2 or not are_alike(list(own.values())):
        return own
    return dict.fromkeys(own, pooled([differences[key] for key in own]))


def are_alike(deviations: Sequence[Deviation]) -> bool:
    """Whether deviations differ by no more than chance lets them, by Bartlett's test (1937)."""
    freedom = [found.df for found in deviations]
    total, groups = sum(freedom), len(deviations)
    variance = sum(found.df * found.std**2 for found in deviations) / total
    statistic = total * math.log(variance) - sum(found.df * 2 * math.log(found.std) for found in deviations)
    correction = 1 + (sum(1 / df for df in freedom) - 1 / total) / (3 * (groups - 1))
    return float(special.chdtrc(groups - 1, max(statistic, 0.0) / correction)) > _ALIKE


def pooled(differences: Sequence[Mapping[int, float]]) -> Deviation:
    """The deviation pooled over losses. Differences of several losses share the baseline's noise: its degrees of
    freedom are fewer than the sum (Satterthwaite 1946, by the correlation that was seen).

    Args:
        differences: seed → paired difference, of each loss; two seeds or more, with spread.
    """
    centred = []
    for own in differences:
        mean = sum(own.values()) / len(own)
        centred.append({seed: value - mean for seed, value in own.items()})
    squares = [sum(value**2 for value in own.values()) for own in centred]
    freedom = [len(own) - 1 for own in centred]
    variance = sum(squares) / sum(freedom)
    weight = 0.0  # the variance of Σ squares, in units of 2σ⁴
    for i, first in enumerate(centred):
        for j, second in enumerate(centred):
            shared = first.keys() & second.keys()
            product = sum(first[seed] * second[seed] for seed in shared)
            weight += max(len(shared) - 1, 0) * product**2 / (squares[i] * squares[j])
    return Deviation(math.sqrt(variance), sum(freedom) ** 2 / weight)


def seeds_for(effect: float, *, level: float = LEVEL, power: float = POWER) -> int:
    """The fewest pairs with which a two-sided paired t test finds a true difference; never fewer than a claim takes.

    Args:
        effect: the true mean difference in standard deviations of the differences; above 0.
        level: the unadjusted two-sided level: of a table, that of its family (`Family.level`).
    """
    return _fewest(lambda n: power_of_t(effect, n, level) >= power, effect, level=level, power=power)


def unpaired_seeds_for(effect: float, *, level: float = LEVEL, power: float = POWER) -> int:
    """The same of two samples without pairs: seeds of each loss, for a two-sided t test of two samples.

    Args:
        effect: the true difference over the standard deviation of one loss's values (of both, the root mean square).
    """

    def finds(n: int) -> bool:
        return power_of_t(effect / math.sqrt(2), n, level, df=2 * n - 2) >= power

    return _fewest(finds, effect / math.sqrt(2), level=level, power=power)


def _fewest(settles: Callable[[int], bool], effect: float, *, level: float, power: float) -> int:
    by_normal = float(((special.ndtri(1 - level / 2) + special.ndtri(power)) / effect) ** 2)
    if by_normal > _LARGE:
        return math.ceil(by_normal)
    low, high = SEEDS_FOR_A_CLAIM - 1, max(SEEDS_FOR_A_CLAIM, math.ceil(by_normal))
    while not settles(high):
        low, high = high, high + 1 + high // 8
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settles(middle) else (middle, high)
    return high


@dataclass(frozen=True, kw_only=True)
class ClaimCost:
    """Seeds and seconds until a difference of `margin` is found with `power` at `level`."""

    deviation: Deviation
    margin: float
    power: float = POWER
    level: float = LEVEL
    seconds_a_pair: float | None = None
    """Seconds of this machine for a run of the loss and one of the baseline: with several at once, their share of it.
    None where no record says."""
    paired: bool = True
    """Differences are paired on seeds; or `deviation` is that of one loss's values."""

    def seeds_at(self, std: float) -> int:
        """Seeds if this were the true deviation."""
        find = seeds_for if self.paired else unpaired_seeds_for
        return find(self.margin / std, level=self.level, power=self.power)

    @property
    def is_enough(self) -> bool:
        """Whether there is a single number: the deviation rests on enough, or all of its interval takes as many."""
        return self.deviation.is_enough or self.interval[0] == self.interval[1]

    @property
    def seeds(self) -> int | None:
        """Seeds by the deviation that was seen; None where it rests on too little."""
        return self.seeds_at(self.deviation.std) if self.is_enough else None

    @property
    def interval(self) -> tuple[int, int]:
        """Seeds at both ends of the 95% interval of the deviation."""
        low, high = self.deviation.interval()
        return self.seeds_at(low), self.seeds_at(high)

    def planned_at(self, confidence: float) -> int | None:
        """Seeds that suffice in this share of pilots like this one; None where it rests on too little."""
        return self.seeds_at(self.deviation.upper(confidence)) if self.is_enough else None

    @property
    def planned(self) -> int | None:
        """Seeds that suffice in four of five."""
        return self.planned_at(CONFIDENCE)

    def seconds(self, seeds: int | None) -> float | None:
        """Seconds on this machine for so many seeds of both losses."""
        return None if seeds is None or self.seconds_a_pair is None else seeds * self.seconds_a_pair


@dataclass(frozen=True)
class Needed:
    """Seeds that settle a question; None: more than MOST_SEEDS."""

    about: int | None
    """By the deviation that was seen."""
    low: int | None
    high: int | None
    """At both ends of the 95% interval of the deviation."""
    is_enough: bool
    """Whether the deviation makes a single number."""


def seeds_needed(result: Paired, deviation: Deviation, *, margin: float | None) -> Needed:
    """About how many seeds would settle the question with power 0.8, if the true difference were the one that was seen:
    show it, or that there is none beyond the margin, whichever takes fewer; at the level of this table's interval.

    Args:
        deviation: of the differences.
    """

    def needed(std: float) -> int | None:
        return _settling(abs(result.mean), std, level=result.level, margin=margin)

    low, high = map(needed, deviation.interval())
    return Needed(needed(deviation.std), low, high, deviation.is_enough)


def _settling(mean: float, std: float, *, level: float, margin: float | None) -> int | None:
    def settles(n: int) -> bool:
        if power_of_t(mean / std, n, level) >= POWER:
            return True
        return margin is not None and _power_of_equivalence(mean, std, margin, n, level) >= POWER

    low, high = SEEDS_FOR_A_CLAIM - 1, SEEDS_FOR_A_CLAIM
    while not settles(high):
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settles(middle) else (middle, high)
    return high


def _power_of_equivalence(mean: float, std: float, margin: float, n: int, level: float) -> float:
    error, df = std / math.sqrt(n), n - 1
    critical = -special.stdtrit(df, level / 2)
    inside = [special.stdtr(df, (margin - side * mean) / error - critical) for side in (1, -1)]
    return max(0.0, float(sum(inside) - 1))
