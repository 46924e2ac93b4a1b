"""Statistics of differences that are paired on seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from losslab.comparison.simultaneous import LEVEL, Estimate, Family, estimate, sidak

POWER = 0.8
SEEDS_FOR_A_CLAIM = 6
"""The smallest two-sided sign-flip p of n pairs is 2 / 2ⁿ: below six it cannot reach 0.05."""
SEEDS_FOR_BCA = 10
"""The number of pairs below which a bootstrap interval is too short."""
RESAMPLES = 9999
_EXACT_UP_TO = 16
ALONE = sidak(1)
"""The family of a single comparison."""


@dataclass(frozen=True, kw_only=True)
class Paired(Estimate):
    """Differences to the baseline on shared seeds. NaN is what one pair, or differences without spread, cannot say."""

    median: float
    std: float = math.nan
    """Standard deviation of the differences, with n − 1."""
    effect: float = math.nan
    """d_z: the mean over that standard deviation (Cohen 1988)."""
    critical: float = math.nan
    """c of the interval."""
    level: float
    """The unadjusted two-sided level that c stands for: of every other interval and power beside this one."""
    joint: bool
    """Whether c follows the estimated correlation of the family; or is Šidák's."""
    bca_low: float = math.nan
    bca_high: float = math.nan
    """The bias-corrected and accelerated bootstrap interval (Efron 1987) at the same level, from ten pairs on."""
    p_t: float = math.nan
    """Two-sided paired t, unadjusted."""
    p_sign_flip: float = math.nan
    """Two-sided exact sign-flip permutation, unadjusted. It assumes that the differences are symmetric."""
    p_wilcoxon: float = math.nan
    """Two-sided Wilcoxon signed-rank, unadjusted; it assumes the same."""
    detectable: float = math.nan
    """The smallest true mean whose interval excludes zero with probability 0.8, given this n, std and c."""


def paired(
    differences: Sequence[float] | NDArray[np.float64],
    *,
    family: Family = ALONE,
    margin: float | None = None,
    resolution: float = 0.0,
) -> Paired:
    """Statistics of the differences, one a seed.

    Args:
        family: of the comparisons that the table makes, this one among them.
        margin: differences below it count as none, in the unit of the differences.
        resolution: differences that vary by no more than this have no spread.
    """
    values = np.asarray(differences, dtype=np.float64)
    n, mean = len(values), float(values.mean())
    joint = family.seeds is not None
    alone = Paired(n=n, mean=mean, median=float(np.median(values)), level=family.level_at(n), joint=joint)
    if n < 2:
        return alone
    known = replace(alone, std=float(values.std(ddof=1)), critical=family.critical(n))
    if float(np.ptp(values)) <= resolution:
        return replace(known, mean=0.0 if abs(mean) <= resolution else mean, spread=False)
    std = known.std
    if family.rule is not None:  # p values and powers of a fixed number of pairs do not hold
        return replace(known, **vars(estimate(mean, std, n, family)), effect=mean / std)
    bca = bca_interval(values, level=family.level) if n >= SEEDS_FOR_BCA else (math.nan, math.nan)
    return replace(
        known,
        **vars(estimate(mean, std, n, family, margin=margin)),
        effect=mean / std,
        bca_low=bca[0],
        bca_high=bca[1],
        p_t=2 * float(special.stdtr(n - 1, -abs(mean) / std * math.sqrt(n))),
        p_sign_flip=sign_flip(values),
        p_wilcoxon=_wilcoxon(values),
        detectable=detectable(std, n, level=family.level),
    )


def sign_flip(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Two-sided p of the mean under all 2ⁿ sign changes (random ones beyond 16 pairs)."""
    values = np.asarray(differences, dtype=np.float64)
    sums = np.abs(_signs(len(values)) @ values)
    # As many sums as the one that was seen, up to rounding.
    as_far = np.count_nonzero(sums >= abs(values.sum()) * (1 - 1e-12))
    return float(as_far / len(sums)) if len(values) <= _EXACT_UP_TO else float((as_far + 1) / (len(sums) + 1))


@lru_cache(maxsize=4)
def _signs(n: int) -> NDArray[np.float64]:
    """[2ⁿ⁻¹, n] of ±1: every pattern with a first plus, for its opposite gives the same size. Beyond 16 pairs random
    ones, [RESAMPLES, n], the same each time."""
    if n > _EXACT_UP_TO:
        return np.random.default_rng(0).choice([-1.0, 1.0], size=(RESAMPLES, n))
    bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)
    return np.where(bits & 1, -1.0, 1.0)


def _wilcoxon(values: NDArray[np.float64]) -> float:
    return 1.0 if not values.any() else float(stats.wilcoxon(values).pvalue)


def bca_interval(values: NDArray[np.float64], *, level: float = LEVEL) -> tuple[float, float]:
    """The BCa bootstrap interval of the mean; of equal values, that value. scipy's is the same, but repeats its draws
    for every metric, which takes seconds where there are hundreds of seeds."""
    n, mean = len(values), float(values.mean())
    if np.ptp(values) == 0:
        return mean, mean
    means = _resamples(n) @ values
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * len(means))
    bias = stats.norm.ppf(below)
    jackknife = (n * mean - values) / (n - 1)
    pulls = jackknife.mean() - jackknife
    acceleration = (pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5)
    normal = bias + stats.norm.ppf([level / 2, 1 - level / 2])
    low, high = np.quantile(means, stats.norm.cdf(bias + normal / (1 - acceleration * normal)))
    return float(low), float(high)


@lru_cache(maxsize=4)
def _resamples(n: int) -> NDArray[np.float64]:
    """[RESAMPLES, n]: how often each value is drawn, over n; the same each time."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean: of the middle half (Agarwal et al. 2021, arXiv 2108.13264)."""
    return float(stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25))


def detectable(std: float, n: int, *, level: float = LEVEL) -> float:
    """The smallest true mean that a two-sided paired t test at this level finds with power 0.8 (Card et al. 2020, arXiv
    2010.06595)."""
    low, high = 0.0, 1.0
    while power_of_t(high, n, level) < POWER:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of_t(middle, n, level) >= POWER else (middle, high)
    return high * std


def power_of_t(effect: float, n: int, level: float, *, df: int | None = None) -> float:
    """Power of a two-sided paired t test; `effect` is the true mean in standard deviations of the differences.

    Args:
        df: degrees of freedom of the deviation; None: n − 1.
    """
    shift, df = effect * math.sqrt(n), n - 1 if df is None else df
    critical = -special.stdtrit(df, level / 2)
    power = 1 - float(special.nctdtr(df, shift, critical)) + float(special.nctdtr(df, shift, -critical))
    return 1.0 if math.isnan(power) else power  # what scipy gives for a very large shift
