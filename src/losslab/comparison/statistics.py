"""Statistics of differences that are paired on seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
POWER = 0.8
SEEDS_FOR_A_CLAIM = 6
"""With n pairs the smallest two-sided sign-flip p is 2 / 2ⁿ: below six it cannot reach 0.05."""
SEEDS_FOR_BCA = 10
"""With fewer pairs a bootstrap interval is too short."""
RESAMPLES = 9999
MOST_SEEDS = 1000
_EXACT_UP_TO = 16


@dataclass(frozen=True)
class Paired:
    """Differences to the baseline on shared seeds. NaN is what one pair (or too few) cannot say."""

    n: int
    mean: float
    median: float
    std: float
    """Of the differences, with n − 1."""
    low: float
    high: float
    """The plain paired-t 95% interval of the mean."""
    bca_low: float
    bca_high: float
    """The bias-corrected and accelerated bootstrap 95% interval (Efron 1987), from ten pairs on."""
    p_t: float
    """Two-sided paired t."""
    p_sign_flip: float
    """Two-sided exact sign-flip permutation."""
    p_wilcoxon: float
    """Two-sided Wilcoxon signed-rank."""
    p_equivalence: float
    """The larger of the two one-sided t tests against the margin (TOST: Schuirmann 1987); NaN without a margin."""
    detectable: float
    """The smallest true mean that a two-sided t test finds with power 0.8, given this n and std, at 0.05 over the
    number of comparisons (Holm's first step)."""


def paired(
    differences: Sequence[float] | NDArray[np.float64], *, margin: float | None = None, comparisons: int = 1
) -> Paired:
    """Statistics of the differences, one a seed.

    Args:
        margin: differences below it count as none, in the unit of the differences.
        comparisons: how many losses the table compares with the baseline.
    """
    values = np.asarray(differences, dtype=np.float64)
    n, mean, median = len(values), float(values.mean()), float(np.median(values))
    if n < 2:
        return Paired(n, mean, median, *[math.nan] * 10)
    std = float(values.std(ddof=1))
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * std / math.sqrt(n)
    bca = bca_interval(values) if n >= SEEDS_FOR_BCA else (math.nan, math.nan)
    return Paired(
        n=n,
        mean=mean,
        median=median,
        std=std,
        low=mean - half,
        high=mean + half,
        bca_low=bca[0],
        bca_high=bca[1],
        p_t=_t_test(values, 0.0, "two-sided"),
        p_sign_flip=sign_flip(values),
        p_wilcoxon=_wilcoxon(values),
        p_equivalence=math.nan if margin is None else equivalence(values, margin),
        detectable=detectable(std, n, level=LEVEL / comparisons),
    )


def _t_test(values: NDArray[np.float64], mean: float, alternative: str) -> float:
    """One-sample t; where every value is the same, t is infinite, or 0 / 0."""
    if np.ptp(values) == 0:
        difference = float(values[0]) - mean
        right = {"two-sided": difference != 0, "greater": difference > 0, "less": difference < 0}[alternative]
        return 0.0 if right else 1.0
    return float(stats.ttest_1samp(values, mean, alternative=alternative).pvalue)


def sign_flip(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Two-sided p of the mean under all 2ⁿ sign changes (random ones beyond 16 pairs)."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) > _EXACT_UP_TO:
        means = np.abs(_signs(len(values)) @ values)
        # As many means as the one that was seen, up to rounding; that one counts, too.
        as_far = np.count_nonzero(means >= abs(values.sum()) * (1 - 1e-12))
        return float((as_far + 1) / (RESAMPLES + 1))
    result = stats.permutation_test(
        (values,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(values),
    )
    return float(result.pvalue)


@lru_cache(maxsize=4)
def _signs(n: int) -> NDArray[np.float64]:
    """[RESAMPLES, n] of ±1, the same each time."""
    return np.random.default_rng(0).choice([-1.0, 1.0], size=(RESAMPLES, n))


def _wilcoxon(values: NDArray[np.float64]) -> float:
    return 1.0 if not values.any() else float(stats.wilcoxon(values).pvalue)


def bca_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The BCa bootstrap 95% interval of the mean; of equal values, that value. scipy's is the same, but draws anew for
    every yardstick, which takes seconds where there are hundreds of seeds."""
    n, mean = len(values), float(values.mean())
    if np.ptp(values) == 0:
        return mean, mean
    means = _resamples(n) @ values
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * len(means))
    bias = stats.norm.ppf(below)
    jackknife = (n * mean - values) / (n - 1)
    pulls = jackknife.mean() - jackknife
    acceleration = (pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5)
    normal = bias + stats.norm.ppf([LEVEL / 2, 1 - LEVEL / 2])
    low, high = np.quantile(means, stats.norm.cdf(bias + normal / (1 - acceleration * normal)))
    return float(low), float(high)


@lru_cache(maxsize=4)
def _resamples(n: int) -> NDArray[np.float64]:
    """[RESAMPLES, n]: how often each value is drawn, over n; the same each time."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def equivalence(values: NDArray[np.float64], margin: float) -> float:
    """TOST: the p at which the mean lies inside (−margin, margin)."""
    return max(_t_test(values, -margin, "greater"), _t_test(values, margin, "less"))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given; NaN stays NaN and does not count (Holm 1979)."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean: of the middle half (Agarwal et al. 2021, arXiv 2108.13264)."""
    return float(stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25))


def detectable(std: float, n: int, *, level: float = LEVEL) -> float:
    """The smallest true mean that a two-sided paired t test finds with power 0.8 (Card et al. 2020, arXiv
    2010.06595)."""
    if std == 0:
        return 0.0
    low, high = 0.0, 1.0
    while _power(high, n, level) < POWER:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, n, level) >= POWER else (middle, high)
    return high * std


def _power(effect: float, n: int, level: float) -> float:
    """Of a two-sided paired t test; `effect` is the true mean in standard deviations of the differences."""
    shift, df = effect * math.sqrt(n), n - 1
    critical = stats.t.ppf(1 - level / 2, df)
    power = float(stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift))
    return 1.0 if math.isnan(power) else power  # what scipy gives for a very large shift


def seeds_needed(result: Paired, *, comparisons: int, margin: float | None) -> int | None:
    """About how many seeds would settle the question with power 0.8, if the true difference and spread were those seen:
    show a difference, or that there is none beyond the margin, whichever takes fewer. Bonferroni's level stands for
    Holm's. None: more than MOST_SEEDS, or nothing to go by."""
    if result.n < 2 or math.isnan(result.std):
        return None
    level = LEVEL / max(comparisons, 1)

    def settles(n: int) -> bool:
        if result.std == 0:
            return True
        if _power(abs(result.mean) / result.std, n, level) >= POWER:
            return True
        return margin is not None and _power_of_equivalence(result, margin, n, level) >= POWER

    low, high = SEEDS_FOR_A_CLAIM - 1, SEEDS_FOR_A_CLAIM
    while not settles(high):
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settles(middle) else (middle, high)
    return high


def _power_of_equivalence(result: Paired, margin: float, n: int, level: float) -> float:
    error, df = result.std / math.sqrt(n), n - 1
    critical = stats.t.ppf(1 - level, df)
    inside = [stats.t.cdf((margin - side * result.mean) / error - critical, df) for side in (1, -1)]
    return max(0.0, float(sum(inside) - 1))


@dataclass(frozen=True)
class Verdict:
    """What the statistics allow to be said of a loss beside the baseline."""

    word: str
    """better, worse, equivalent or undecided."""
    text: str
    """The same for people, with its limits."""


def judge(
    result: Paired,
    p_difference: float,
    p_equivalence: float,
    *,
    higher_is_better: bool,
    margin: float | None,
    lost: str = "",
) -> Verdict:
    """Better or worse where the Holm-adjusted paired-t p and the sign-flip p are below 0.05; equivalent where the
    Holm-adjusted TOST p is; else undecided. A word stands alone only from six seeds on.

    Args:
        p_difference, p_equivalence: adjusted over the table's comparisons.
        lost: which runs have no result, so that the word is about the others alone.
    """
    hint = f"{result.n} seed{'s' * (result.n != 1)}: a hint, not a claim" if result.n < SEEDS_FOR_A_CLAIM else ""
    same = p_equivalence < LEVEL
    notes = [*([f"without those lost: {lost}"] if lost else []), *([hint] if hint else [])]
    # Below six seeds the exact test cannot reach 0.05, whatever the data: the hint says as much.
    if p_difference < LEVEL and (hint or result.p_sign_flip < LEVEL):
        word = "better" if (result.mean > 0) == higher_is_better else "worse"
        if same:
            notes.insert(0, f"by less than {margin:g}")
    elif same:
        word = "equivalent"
        notes.insert(0, f"within {margin:g}")
    else:
        return Verdict("undecided", "undecided")
    return Verdict(word, f"{word} ({'; '.join(notes)})" if notes else word)
