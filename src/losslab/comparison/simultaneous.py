"""Simultaneous inference on the comparisons of a table: interval, p and verdict come from one distribution.

Single-step max-|t| (Hothorn, Bretz and Westfall 2008, doi 10.1002/bimj.200810425): every interval is mean ± c·s/√n,
with c such that all of them together hold the true means with probability 0.95.

Below eight seeds c is Šidák's (1967, doi 10.1080/01621459.1967.10482935), which holds for any correlation of normal
differences. From eight on, it comes from the joint distribution of the t statistics under the estimated correlation of
the paired differences. That estimate is shrunk towards independence (Schäfer and Strimmer 2005, doi
10.2202/1544-6115.1175): by the raw one of eight seeds and five losses c would be 2% too small on average. Each t has
a standard deviation of its own; the multivariate t and Dunnett's distribution, in which all share one, are too narrow.

In a sweep that added seeds until its losses were decided, c is the bound of its rule (losslab.sequential).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from scipy.stats import qmc

from losslab.sequential.rule import Rule

LEVEL = 0.05
SEEDS_FOR_CORRELATION = 8
MOST_CORRELATED = 30
"""The number of comparisons above which Šidák's c is used; the joint one would take seconds."""
DRAWS = 2**14
"""The joint c is then exact to about 0.01."""
_NODES = 256
_DIGITS = 5
_ABOVE = 1.00002 * LEVEL
"""The smallest p that is printed for an interval which holds zero."""


@dataclass(frozen=True)
class Family:
    """The comparisons whose intervals hold together.

    Attributes:
        size: how many there are.
        level: the unadjusted two-sided level of each of them.
        seeds: the number of pairs in each where c follows the estimated correlation; None: Šidák's.
        rule: of a sweep that added seeds until its losses were decided: c is its bound, and there is no p.
    """

    size: int
    level: float
    seeds: int | None = None
    _radii: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    rule: Rule | None = field(default=None, kw_only=True)

    def critical(self, n: int) -> float:
        """c, for n pairs; NaN where a rule does not look."""
        if self.rule is None:
            return float(-special.stdtrit(n - 1, self.level / 2))
        bound = float(self.rule.bounds()[n - 1])
        return bound if math.isfinite(bound) else math.nan

    def level_at(self, n: int) -> float:
        """The unadjusted two-sided level that c stands for with n pairs."""
        if self.rule is None or n < 2 or math.isnan(c := self.critical(n)):
            return self.level
        return 2 * float(special.stdtr(n - 1, -c))

    def adjust(self, t: float, n: int) -> float:
        """The probability that some |t| of the family is `t` or larger where there is no difference anywhere."""
        alone = 2 * float(special.stdtr(n - 1, -abs(t)))
        sidak = 1.0 if alone >= 1 else -math.expm1(self.size * math.log1p(-alone))
        if self._radii is None or self.seeds is None or t == 0:
            return sidak
        joint = _exceeding(abs(t), self._radii, self.size, self.seeds - 1)
        return min(max(float(f"{joint:.{_DIGITS}g}"), alone), sidak)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean difference within its family. NaN is what one pair, or differences without spread, cannot say."""

    n: int
    """Pairs."""
    mean: float
    low: float = math.nan
    high: float = math.nan
    """The simultaneous 95% interval of the mean: mean ± critical · std / √n."""
    p: float = math.nan
    """Two-sided, adjusted over the family: 0.05 or less if and only if the interval excludes zero."""
    p_equivalence: float = math.nan
    """Adjusted likewise: 0.05 or less if and only if the interval lies inside ±margin; NaN without a margin."""
    spread: bool = True
    """Whether the differences vary by more than rounding; without it they are no sample, and there is no p."""


def estimate(mean: float, std: float, n: int, family: Family, *, margin: float | None = None) -> Estimate:
    """Interval and p values of a mean difference.

    Args:
        std: of the differences, with n − 1; above 0.
        margin: differences below it count as none, in the unit of the differences.
    """
    low, high = interval(mean, std, n, family)
    if family.rule is not None:
        return Estimate(n=n, mean=mean, low=float(low), high=float(high))
    error = std / math.sqrt(n)
    p = _on_side(family.adjust(mean / error, n), significant=bool(excludes_zero(low, high)))
    found = Estimate(n=n, mean=mean, low=float(low), high=float(high), p=p)
    if margin is None:
        return found
    same = 1.0 if abs(mean) >= margin else family.adjust((margin - abs(mean)) / error, n)
    return replace(found, p_equivalence=_on_side(same, significant=bool(is_inside(low, high, margin))))


Numbers = float | NDArray[np.float64]


def interval(mean: Numbers, std: Numbers, n: int, family: Family) -> tuple[Numbers, Numbers]:
    """The simultaneous 95% interval; of arrays, each on its own."""
    half = family.critical(n) * std / math.sqrt(n)
    return mean - half, mean + half


def excludes_zero(low: Numbers, high: Numbers) -> bool | NDArray[np.bool_]:
    """Whether the interval shows a difference."""
    return (low > 0) | (high < 0)


def is_inside(low: Numbers, high: Numbers, margin: float) -> bool | NDArray[np.bool_]:
    """Whether the interval shows that there is no difference beyond the margin."""
    return (-margin < low) & (high < margin)


def _on_side(p: float, *, significant: bool) -> float:
    """Rounding must not set p and interval at odds: the interval decides."""
    return min(p, LEVEL) if significant else max(p, _ABOVE)


def sidak(size: int) -> Family:
    """A family about whose correlation nothing is assumed."""
    return Family(size, -math.expm1(math.log1p(-LEVEL) / max(size, 1)))


def by_rule(rule: Rule) -> Family:
    """The family of the losses of a sweep that added seeds by this rule."""
    return Family(rule.losses, rule.level / rule.losses, rule=rule)


def family_of(differences: Sequence[Mapping[int, float]]) -> Family:
    """The family of these comparisons.

    Args:
        differences: seed → paired difference, of each comparison. Where all of them have the same seeds, and enough,
            their correlation counts; where a run is missing in one, c is Šidák's, for each at its own number of pairs.
    """
    size, seeds = len(differences), set(differences[0]) if differences else set()
    alike = all(set(own) == seeds for own in differences)
    if not (alike and len(seeds) >= SEEDS_FOR_CORRELATION and 1 < size <= MOST_CORRELATED):
        return sidak(size)
    return correlated(np.array([[own[seed] for own in differences] for seed in sorted(seeds)]))


def correlated(differences: NDArray[np.float64]) -> Family:
    """The family of [n, k] paired differences, a row a seed, by their estimated correlation."""
    return joint(_correlation(differences), len(differences))


def joint(correlation: NDArray[np.float64], n: int) -> Family:
    """The family of n pairs in each of k comparisons whose differences have this [k, k] correlation."""
    size = len(correlation)
    radii = _radii(correlation, n - 1)
    widest = sidak(size)
    most = widest.critical(n)
    least = float(-special.stdtrit(n - 1, LEVEL / 2))
    excess = [_exceeding(c, radii, size, n - 1) - LEVEL for c in (least, most)]
    if excess[1] >= 0:  # Šidák's c is an upper bound, which the draws miss by their own error
        critical = most
    elif excess[0] <= 0:
        critical = least
    else:
        critical = optimize.brentq(lambda c: _exceeding(c, radii, size, n - 1) - LEVEL, least, most, xtol=1e-6)
    level = 2 * float(special.stdtr(n - 1, -round(critical, _DIGITS)))
    return Family(size, level, n, radii)


def _correlation(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """[k, k], shrunk towards independence by as much as its sampling error calls for."""
    n, size = differences.shape
    centred = differences - differences.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    apart = (unit.T @ unit)[~np.eye(size, dtype=bool)]
    square = float((apart**2).sum())
    share = 1.0 if square == 0 else min(1.0, float(((1 - apart**2) ** 2).sum()) / (n - 1) / square)
    # For losses with equal differences the matrix would be singular.
    share = max(share, 1e-6)
    found: NDArray[np.float64] = (1 - share) * (unit.T @ unit) * (1 - np.eye(size)) + np.eye(size)
    return found


@lru_cache(maxsize=8)
def _directions(size: int, df: int) -> tuple[NDArray[np.float32], list[NDArray[np.float32]], NDArray[np.float64]]:
    """Draws for k means, [k, DRAWS], and for the columns of a Wishart matrix's factor, as many as there are degrees of
    freedom, each [k, DRAWS] (Bartlett's decomposition); and [DRAWS], the ratio of their squared lengths. The same each
    time."""
    rank = min(size, df)
    uniform = qmc.Sobol(size + sum(size - i for i in range(rank)), seed=0).random(DRAWS).clip(1e-10, 1 - 1e-10).T
    means = special.ndtri(uniform[:size])
    columns, at = [], size
    for i in range(rank):
        column = np.zeros((size, DRAWS))
        column[i] = np.sqrt(special.chdtri(df - i, uniform[at]))
        column[i + 1 :] = special.ndtri(uniform[at + 1 : at + size - i])
        columns.append(column)
        at += size - i
    ratio: NDArray[np.float64] = sum((column**2).sum(axis=0) for column in columns) / (means**2).sum(axis=0)
    return means.astype(np.float32), [column.astype(np.float32) for column in columns], ratio


def _radii(correlation: NDArray[np.float64], df: int) -> NDArray[np.float64]:
    """[_NODES]: the largest t² / df in each of many directions, at unit lengths of means and Wishart factor."""
    means, columns, ratio = _directions(len(correlation), df)
    root = np.linalg.cholesky(correlation).astype(np.float32)
    scatter = np.zeros_like(means)
    for column in columns:
        scatter += np.square(root @ column)
    largest = (np.square(root @ means) / scatter).max(axis=0)
    # Neighbours stand together for one node, which moves c by 0.001.
    nodes: NDArray[np.float64] = np.exp(np.log(np.sort(largest * ratio)).reshape(_NODES, -1).mean(axis=1))
    return nodes


def _exceeding(t: float, radii: NDArray[np.float64], size: int, df: int) -> float:
    """P(max |t| ≥ t). The lengths of means and factor are independent of their directions, and their ratio has an F
    distribution: so only directions are drawn, and the probability is smooth in t, far into the tail."""
    return float(special.fdtrc(size, size * df, t * t / radii).mean())
