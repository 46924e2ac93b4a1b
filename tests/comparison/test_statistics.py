"""Paired statistics against values that were worked out by hand, by scipy, or by trying every sign."""

import itertools
import math
import random

import pytest
from scipy import stats

from losslab.comparison.statistics import SEEDS_FOR_A_CLAIM, Paired, holm, paired, sign_flip, verdict

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
    assert verdict(result, result.p_t, higher_is_better=False) == "undecided"


@pytest.mark.parametrize(("difference", "p_t", "p_sign_flip"), [(0.5, 0.0, 0.25), (0.0, 1.0, 1.0)])
def test_the_same_difference_in_every_seed_is_no_division_by_zero(difference, p_t, p_sign_flip) -> None:
    assert paired([difference] * 3) == Paired(3, difference, difference, difference, p_t, p_sign_flip)


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
    return Paired(n, mean, mean - 0.01, mean + 0.01, 0.001, p_sign_flip)


@pytest.mark.parametrize(
    ("measured", "p_adjusted", "higher_is_better", "expected"),
    [
        (result(n=3), 0.01, False, "better (3 seeds: a hint, not a claim)"),
        (result(n=3, mean=0.1), 0.01, False, "worse (3 seeds: a hint, not a claim)"),
        (result(n=5, p_sign_flip=0.0625), 0.01, False, "better (5 seeds: a hint, not a claim)"),
        (result(n=6), 0.01, False, "better"),
        (result(n=6, mean=0.1), 0.01, False, "worse"),
        (result(n=6, mean=0.1), 0.01, True, "better"),
        (result(n=3, mean=-0.1), 0.01, True, "worse (3 seeds: a hint, not a claim)"),
        (result(n=6, p_sign_flip=0.05), 0.01, False, "undecided"),
        (result(n=6, p_sign_flip=0.09), 0.01, False, "undecided"),
        (result(n=6, p_sign_flip=0.03125), 0.0499, False, "better"),
        (result(n=6), 0.05, False, "undecided"),
        (result(n=3), 0.05, False, "undecided"),
        (result(n=20), 0.9, False, "undecided"),
        (result(n=6), NAN, False, "undecided"),
    ],
)
def test_a_word_needs_evidence(measured: Paired, p_adjusted: float, higher_is_better: bool, expected: str) -> None:
    assert verdict(measured, p_adjusted, higher_is_better=higher_is_better) == expected


def test_six_seeds_are_the_fewest_that_a_sign_flip_can_tell_apart() -> None:
    assert sign_flip([1.0] * SEEDS_FOR_A_CLAIM) < 0.05 <= sign_flip([1.0] * (SEEDS_FOR_A_CLAIM - 1))
