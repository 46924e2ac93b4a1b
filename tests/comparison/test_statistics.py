"""Paired statistics against values that were worked out by hand, by scipy, or by trying every sign."""

import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from losslab.comparison.simultaneous import LEVEL, estimate, sidak
from losslab.comparison.statistics import (
    POWER,
    SEEDS_FOR_A_CLAIM,
    bca_interval,
    detectable,
    iqm,
    paired,
    sign_flip,
)
from losslab.comparison.verdicts import judge

NAN = math.nan


def test_the_paired_interval_is_the_textbooks() -> None:
    # Mean 3, standard deviation sqrt(2.5), n = 5: 3 ± 2.776445 · sqrt(2.5 / 5), t = 3 / sqrt(0.5) = 4.242641.
    result = paired([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (result.n, result.mean) == (5, 3.0)
    assert result.low == pytest.approx(3 - 2.7764451 * math.sqrt(0.5), rel=1e-6)
    assert result.high == pytest.approx(3 + 2.7764451 * math.sqrt(0.5), rel=1e-6)
    assert result.p_t == pytest.approx(0.0132360, rel=1e-4)
    assert result.p_sign_flip == 2 / 32


@pytest.mark.parametrize("seed", range(4))
def test_the_paired_t_is_scipys(seed: int) -> None:
    draw = random.Random(seed)
    ours, theirs = ([draw.gauss(3, 1) for _ in range(3 + 4 * seed)] for _ in range(2))
    result = paired([a - b for a, b in zip(ours, theirs, strict=True)])
    reference = stats.ttest_rel(ours, theirs)
    interval = reference.confidence_interval(0.95)
    assert result.p_t == pytest.approx(reference.pvalue, rel=1e-9)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_one_pair_has_a_difference_and_no_interval() -> None:
    result = paired([0.25])
    assert (result.n, result.mean) == (1, 0.25)
    assert all(math.isnan(value) for value in (result.low, result.high, result.p_t, result.p_sign_flip))
    assert judge(result, higher_is_better=False, margin=1.0).text == "undecided"


@pytest.mark.parametrize("difference", [0.5, 0.0])
def test_the_same_difference_in_every_seed_is_no_evidence(difference: float) -> None:
    result = paired([difference, difference + 1e-9, difference], margin=0.1, resolution=1e-8)
    assert result.mean == pytest.approx(difference, abs=1e-8) and not result.spread
    empty = (result.low, result.high, result.p, result.p_equivalence, result.p_t, result.p_sign_flip, result.detectable)
    assert all(math.isnan(value) for value in (*empty, result.effect, result.p_wilcoxon))
    assert judge(result, higher_is_better=False, margin=0.1).word == "undecided"
    assert paired([difference, difference + 1e-7, difference], resolution=1e-8).spread


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", range(2, 11))
def test_pairs_of_one_sign_have_the_smallest_p(n: int, sign: int) -> None:
    assert sign_flip([sign * (0.1 + i) for i in range(n)]) == 2 / 2**n


@pytest.mark.parametrize("seed", range(6))
def test_sign_flip_tries_every_sign(seed: int) -> None:
    draw = random.Random(seed)
    values = [draw.choice([-2, -1, 0, 1, 2, 3]) for _ in range(3 + seed)]
    sums = [
        sum(sign * abs(v) for sign, v in zip(s, values, strict=True))
        for s in itertools.product((1, -1), repeat=len(values))
    ]
    one_sided = min(sum(total >= sum(values) for total in sums), sum(total <= sum(values) for total in sums)) / len(
        sums
    )
    assert sign_flip([float(value) for value in values]) == pytest.approx(min(1.0, 2 * one_sided))


def test_many_pairs_are_sampled_and_the_same_each_time() -> None:
    values = [math.sin(i) for i in range(20)]
    assert sign_flip(values) == sign_flip(values)
    assert sign_flip(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.03)
    assert sign_flip([1.0 + value / 10 for value in values]) < 0.001


@pytest.mark.parametrize(
    ("n", "mean", "higher_is_better", "expected"),
    [
        (3, -0.5, False, "better (3 seeds: a hint, not a claim)"),
        (3, 0.5, False, "worse (3 seeds: a hint, not a claim)"),
        (5, -0.5, False, "better (5 seeds: a hint, not a claim)"),
        (6, -0.5, False, "better"),
        (6, 0.5, False, "worse"),
        (6, 0.5, True, "better"),
        (3, -0.5, True, "worse (3 seeds: a hint, not a claim)"),
        (7, 0.1, True, "undecided"),
        (6, 0.0, False, "equivalent (within ±0.2)"),
        (4, 0.0, False, "equivalent (within ±0.2; 4 seeds: a hint, not a claim)"),
        (20, -0.12, False, "better, but equivalent (within ±0.2)"),
        (5, -0.105, True, "worse, but equivalent (within ±0.2; 5 seeds: a hint, not a claim)"),
    ],
)
def test_a_word_says_what_the_interval_says(n: int, mean: float, higher_is_better: bool, expected: str) -> None:
    """Half an interval of 0.1 (0.09 for 5 seeds, 0.3 for 7, 0.05 for 20) about the mean; the margin is 0.2."""
    family = sidak(1)
    half = {5: 0.09, 7: 0.3, 20: 0.05}.get(n, 0.1)
    found = estimate(mean, half * math.sqrt(n) / family.critical(n), n, family, margin=0.2)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))
    verdict = judge(found, higher_is_better=higher_is_better, margin=0.2)
    assert verdict.text == expected
    assert verdict.word == expected.partition(" ")[0].rstrip(",")
    assert verdict.equivalent == ("equivalent" in expected) == (found.p_equivalence <= LEVEL)
    assert (found.p <= LEVEL) == (verdict.word in ("better", "worse"))


def test_six_seeds_are_the_fewest_that_a_sign_flip_can_tell_apart() -> None:
    assert sign_flip([1.0] * SEEDS_FOR_A_CLAIM) < 0.05 <= sign_flip([1.0] * (SEEDS_FOR_A_CLAIM - 1))


# Coverage of the intervals and power of the tests, on differences with a known mean.

EFFECT, SEED_STD, OWN_STD, DRAWS = 0.03, 0.2, 0.05, 1000


def sweeps(n: int) -> tuple[np.ndarray, np.ndarray]:
    """[DRAWS, n] results of a baseline and of a loss: seeds matter to both alike, and a little to each alone."""
    random = np.random.default_rng(n)
    seeds = SEED_STD * random.standard_normal((DRAWS, n))
    own = OWN_STD * random.standard_normal((2, DRAWS, n))
    return 3 + seeds + own[0], 3 + EFFECT + seeds + own[1]


@pytest.mark.parametrize("n", [3, 6, 12])
def test_the_paired_interval_covers_the_effect_in_95_percent_of_the_draws(n: int) -> None:
    baseline, loss = sweeps(n)
    covered = 0
    for a, b in zip(baseline, loss, strict=True):
        half = stats.t.ppf(0.975, n - 1) * (b - a).std(ddof=1) / math.sqrt(n)
        covered += abs((b - a).mean() - EFFECT) < half
    intervals = [paired(b - a) for a, b in zip(baseline[:50], loss[:50], strict=True)]
    for (a, b), r in zip(zip(baseline, loss, strict=True), intervals, strict=False):
        half = stats.t.ppf(0.975, n - 1) * (b - a).std(ddof=1) / math.sqrt(n)
        assert (r.low, r.high) == pytest.approx(((b - a).mean() - half, (b - a).mean() + half))
    assert 0.93 <= covered / DRAWS <= 0.97


def test_paired_intervals_are_narrower_than_unpaired_ones() -> None:
    baseline, loss = sweeps(6)
    narrower = []
    for a, b in zip(baseline[:100], loss[:100], strict=True):
        r = paired(b - a)
        welch = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
        narrower.append((r.high - r.low) / (welch.high - welch.low))
    assert np.median(narrower) < 0.5  # the seeds' own spread is four times the losses'
    assert np.mean(np.array(narrower) < 1) > 0.95


@pytest.mark.parametrize("n", [10, 20])
def test_the_bca_interval_is_scipys_and_somewhat_too_short(n: int) -> None:
    """So it stands beside the paired-t interval, and never in its place."""
    baseline, loss = sweeps(n)
    pairs = list(zip(baseline[:200], loss[:200], strict=True))
    covered = [low < EFFECT < high for low, high in (bca_interval(b - a) for a, b in pairs)]
    assert 0.85 <= np.mean(covered) <= 0.97
    values = loss[0] - baseline[0]
    expected = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert bca_interval(values) == pytest.approx((expected.low, expected.high), abs=0.002)
    assert math.isnan(paired(values[:9]).bca_low) and paired(values).bca_low == bca_interval(values)[0]


def test_the_sign_flip_p_is_uniform_where_there_is_no_effect() -> None:
    """Twelve seeds: 4,096 sign changes. Skewed pairs, so that a t test would not do as well."""
    random = np.random.default_rng(2)
    skewed = random.exponential(size=(2, 250, 12)) ** 1.5
    p_values = [sign_flip(row) for row in skewed[0] - skewed[1]]
    assert stats.kstest(p_values, "uniform").pvalue > 0.05
    assert 0.02 <= np.mean(np.array(p_values) < LEVEL) <= 0.08


@pytest.mark.parametrize("n", [3, 6, 20])
def test_the_detectable_difference_is_found_with_the_stated_power(n: int) -> None:
    std = 0.02
    true = detectable(std, n)
    random = np.random.default_rng(0)
    draws = true + std * random.standard_normal((20_000, n))
    p = stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert np.mean(p < LEVEL) == pytest.approx(POWER, abs=0.01)
    assert detectable(std, n + 1) < true and detectable(2 * std, n) == pytest.approx(2 * true)


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side() -> None:
    assert iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0]) == 3.5
    assert iqm([1.0, 2.0, 9.0]) == 4.0
