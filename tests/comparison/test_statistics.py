"""Paired statistics against values that were worked out by hand, by scipy, or by trying every sign."""

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from losslab.comparison.statistics import (
    LEVEL,
    POWER,
    SEEDS_FOR_A_CLAIM,
    Paired,
    bca_interval,
    detectable,
    equivalence,
    holm,
    iqm,
    judge,
    paired,
    seeds_needed,
    sign_flip,
)

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
    verdict = judge(result, result.p_t, result.p_equivalence, higher_is_better=False, margin=1.0)
    assert verdict.text == "undecided"


@pytest.mark.parametrize(("difference", "p_t", "p_sign_flip"), [(0.5, 0.0, 0.25), (0.0, 1.0, 1.0)])
def test_the_same_difference_in_every_seed_is_no_division_by_zero(difference, p_t, p_sign_flip) -> None:
    result = paired([difference] * 3, margin=0.1)
    assert (result.low, result.mean, result.high, result.std) == (difference, difference, difference, 0.0)
    assert (result.p_t, result.p_sign_flip) == (p_t, p_sign_flip)
    assert result.p_equivalence == (0.0 if difference == 0 else 1.0)
    assert result.detectable == 0.0
    assert paired([difference] * 12).bca_low == difference


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
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.01, 0.011, 0.5], [0.03, 0.03, 0.5]),
        ([0.5, 0.6, 0.7], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.01, NAN, 0.04], [0.02, NAN, 0.04]),
        ([NAN, NAN], [NAN, NAN]),
        ([0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_holm_steps_down_with_a_running_maximum(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted, nan_ok=True)


def result(*, n: int, mean: float = -0.1, p_sign_flip: float = 0.01) -> Paired:
    few = paired([mean - 0.01, mean, mean + 0.01])
    return replace(few, n=n, mean=mean, p_sign_flip=p_sign_flip)


@pytest.mark.parametrize(
    ("measured", "p", "p_same", "higher_is_better", "expected"),
    [
        (result(n=3), 0.01, NAN, False, "better (3 seeds: a hint, not a claim)"),
        (result(n=3, mean=0.1), 0.01, NAN, False, "worse (3 seeds: a hint, not a claim)"),
        (result(n=5, p_sign_flip=0.0625), 0.01, 1.0, False, "better (5 seeds: a hint, not a claim)"),
        (result(n=6), 0.01, 1.0, False, "better"),
        (result(n=6, mean=0.1), 0.01, 1.0, False, "worse"),
        (result(n=6, mean=0.1), 0.01, 1.0, True, "better"),
        (result(n=3, mean=-0.1), 0.01, 1.0, True, "worse (3 seeds: a hint, not a claim)"),
        (result(n=6, p_sign_flip=0.05), 0.01, 1.0, False, "undecided"),
        (result(n=6, p_sign_flip=0.09), 0.01, 1.0, False, "undecided"),
        (result(n=6, p_sign_flip=0.03125), 0.0499, 1.0, False, "better"),
        (result(n=6), 0.05, 1.0, False, "undecided"),
        (result(n=3), 0.05, 1.0, False, "undecided"),
        (result(n=20), 0.9, 1.0, False, "undecided"),
        (result(n=6), NAN, NAN, False, "undecided"),
        (result(n=6), 0.9, 0.01, False, "equivalent (within 0.2)"),
        (result(n=6), 0.9, 0.05, False, "undecided"),
        (result(n=4), 0.9, 0.01, False, "equivalent (within 0.2; 4 seeds: a hint, not a claim)"),
        (result(n=6), 0.01, 0.01, False, "better (by less than 0.2)"),
        (result(n=5), 0.01, 0.01, True, "worse (by less than 0.2; 5 seeds: a hint, not a claim)"),
        (result(n=6, p_sign_flip=0.09), 0.01, 0.01, False, "equivalent (within 0.2)"),
    ],
)
def test_a_word_needs_evidence(
    measured: Paired, p: float, p_same: float, higher_is_better: bool, expected: str
) -> None:
    verdict = judge(measured, p, p_same, higher_is_better=higher_is_better, margin=0.2)
    assert verdict.text == expected
    assert verdict.word == expected.partition(" ")[0]


def test_six_seeds_are_the_fewest_that_a_sign_flip_can_tell_apart() -> None:
    assert sign_flip([1.0] * SEEDS_FOR_A_CLAIM) < 0.05 <= sign_flip([1.0] * (SEEDS_FOR_A_CLAIM - 1))


# What "Done when" asks of the intervals and tests, on differences with a known mean.

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


@pytest.mark.parametrize(
    ("values", "margin", "p"),
    [
        # Mean 0.1, standard error 0.05, n = 5: t = (0.1 + 0.3) / 0.05 = 8 and (0.1 - 0.3) / 0.05 = -4, df 4.
        ([0.1 + 0.05 * math.sqrt(5) * x / math.sqrt(2.5) for x in (-2, -1, 0, 1, 2)], 0.3, 0.0080650),
        # Mean 0, the same error, margin 0.1: t = ±2, one-sided p with df 4.
        ([0.05 * math.sqrt(5) * x / math.sqrt(2.5) for x in (-2, -1, 0, 1, 2)], 0.1, 0.0580582),
    ],
)
def test_equivalence_is_the_larger_of_two_one_sided_tests_worked_by_hand(values, margin, p) -> None:
    assert equivalence(np.array(values), margin) == pytest.approx(p, rel=1e-4)
    inside = paired(values, margin=margin)
    half = stats.t.ppf(0.95, 4) * 0.05
    assert (inside.p_equivalence < 0.05) == (abs(inside.mean) + half < margin)  # the 90% interval lies inside


@pytest.mark.parametrize("n", [3, 6, 20])
def test_the_detectable_difference_is_found_with_the_stated_power(n: int) -> None:
    std = 0.02
    true = detectable(std, n)
    random = np.random.default_rng(0)
    draws = true + std * random.standard_normal((20_000, n))
    p = stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert np.mean(p < LEVEL) == pytest.approx(POWER, abs=0.01)
    assert detectable(std, n + 1) < true and detectable(2 * std, n) == pytest.approx(2 * true)


def test_a_large_difference_needs_few_seeds_and_none_at_all_a_margin() -> None:
    seen = paired([0.01, 0.02, 0.03, -0.01])
    few = seeds_needed(replace(seen, mean=0.05, std=0.02), comparisons=1, margin=None)
    assert few == SEEDS_FOR_A_CLAIM
    many = seeds_needed(replace(seen, mean=0.01, std=0.02), comparisons=1, margin=None)
    assert many is not None and 30 <= many <= 37  # (1.96 + 0.84)² · 4 = 31.4, and t for z
    assert (seeds_needed(replace(seen, mean=0.01, std=0.02), comparisons=5, margin=None) or 0) > many
    assert seeds_needed(replace(seen, mean=0.0, std=0.02), comparisons=1, margin=None) is None
    same = seeds_needed(replace(seen, mean=0.0, std=0.02), comparisons=1, margin=0.01)
    assert same is not None and 33 <= same <= 40
    assert seeds_needed(paired([0.1]), comparisons=1, margin=0.01) is None


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side() -> None:
    assert iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0]) == 3.5
    assert iqm([1.0, 2.0, 9.0]) == 4.0
