"""The family's c and p against closed forms, tables and a simulation that is written out; and how often they err."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks import statistics as benchmark_statistics
from losslab.comparison.output.numbers import p_value
from losslab.comparison.simultaneous import (
    LEVEL,
    MOST_CORRELATED,
    _correlation,
    correlated,
    estimate,
    family_of,
    sidak,
)
from losslab.comparison.statistics import paired
from losslab.comparison.verdicts import judge
from losslab.numbers import interval


def with_correlation(matrix: np.ndarray, n: int) -> np.ndarray:
    """[n, k] differences that have exactly this sample correlation, or where seeds are too few for it, about this."""
    size = len(matrix)
    draws = np.random.default_rng(0).standard_normal((n, size))
    if n <= size:
        return draws @ np.linalg.cholesky(matrix).T
    white, _ = np.linalg.qr(draws - draws.mean(axis=0))
    return white @ np.linalg.cholesky(matrix).T


def alike(size: int, rho: float) -> np.ndarray:
    return np.full((size, size), rho) + (1 - rho) * np.eye(size)


@pytest.mark.parametrize(("size", "n"), [(1, 3), (2, 6), (5, 7), (10, 4)])
def test_sidaks_c_and_p_are_the_textbooks(size: int, n: int) -> None:
    family = sidak(size)
    assert family.critical(n) == pytest.approx(stats.t.isf((1 - 0.95 ** (1 / size)) / 2, n - 1), rel=1e-9)
    for t in (0.0, 0.5, 3.0, 20.0):
        alone = 2 * stats.t.sf(t, n - 1)
        assert family.adjust(-t, n) == pytest.approx(1 - (1 - alone) ** size)
    assert 0 < family.adjust(1e4, 12) < 1e-20, "the far tail is no zero"


def test_a_family_of_one_is_the_paired_t() -> None:
    values = [0.3, -0.1, 0.4, 0.2, 0.35, 0.1, 0.2, 0.15]
    family = family_of([dict(enumerate(values))])
    result, reference = paired(values, family=family), stats.ttest_1samp(values, 0)
    expected = reference.confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert result.p == result.p_t == pytest.approx(reference.pvalue)


# With many seeds the joint distribution is the multivariate normal's: Dunnett's two-sided 5% points for correlation 0.5
# and infinitely many degrees of freedom (Dunnett 1964).
@pytest.mark.parametrize(("size", "rho", "c"), [(2, 0.5, 2.21), (3, 0.5, 2.35), (5, 0.5, 2.51), (9, 0.5, 2.69)])
def test_with_many_seeds_c_is_dunnetts(size: int, rho: float, c: float) -> None:
    n = 20_000
    assert correlated(with_correlation(alike(size, rho), n)).critical(n) == pytest.approx(c, abs=0.012)


@pytest.mark.parametrize(("size", "rho", "n"), [(2, 0.8, 8), (5, 0.5, 8), (5, 0.0, 12), (4, 0.95, 10), (9, 0.5, 8)])
def test_the_joint_c_and_p_are_those_of_a_simulation_written_out(size: int, rho: float, n: int) -> None:
    """Every t has a standard deviation of its own; the correlation is the shrunken estimate."""
    differences = with_correlation(alike(size, rho), n)
    family = correlated(differences)
    assert family.seeds == n
    random, root = np.random.default_rng(1), np.linalg.cholesky(_correlation(differences))
    largest = []
    for _ in range(40):
        x = random.standard_normal((2500, n, size)) @ root.T
        largest.append(np.abs(x.mean(axis=1) / x.std(axis=1, ddof=1)).max(axis=1) * math.sqrt(n))
    t = np.concatenate(largest)
    assert np.mean(t > family.critical(n)) == pytest.approx(LEVEL, abs=0.003)
    for seen in (1.0, 2.0, 4.0, 6.0):
        assert family.adjust(seen, n) == pytest.approx(np.mean(t >= seen), abs=0.006)
    assert family.critical(n) <= sidak(size).critical(n)
    assert [family.adjust(x, n) for x in (2.0, 4.0, 8.0, 16.0, 32.0)] == sorted(
        (family.adjust(x, n) for x in (2.0, 4.0, 8.0, 16.0, 32.0)), reverse=True
    )


def test_equal_losses_are_one_and_unrelated_ones_are_sidaks() -> None:
    random = np.random.default_rng(0)
    one = random.standard_normal((10, 1))
    assert correlated(np.tile(one, 4)).critical(10) == pytest.approx(stats.t.isf(0.025, 9), abs=0.02)
    orthogonal = with_correlation(np.eye(4), 10)
    assert correlated(orthogonal).critical(10) == pytest.approx(sidak(4).critical(10), abs=0.01)


def test_the_correlation_is_shrunk_as_schaefer_and_strimmer_do() -> None:
    differences = with_correlation(np.array([[1.0, 0.6, 0.1], [0.6, 1.0, 0.3], [0.1, 0.3, 1.0]]), 9)
    apart = np.array([0.6, 0.1, 0.3])
    share = ((1 - apart**2) ** 2 / 8).sum() / (apart**2).sum()
    assert _correlation(differences)[[0, 0, 1], [1, 2, 2]] == pytest.approx((1 - share) * apart)
    constant = differences * [1.0, 0.0, 1.0]
    assert np.isfinite(_correlation(constant)).all(), "a loss without spread is independent of all others"


def of(differences: np.ndarray) -> list[dict[int, float]]:
    return [dict(enumerate(column)) for column in differences.T]


def test_the_correlation_counts_from_eight_seeds_that_all_losses_share() -> None:
    differences = with_correlation(alike(3, 0.9), 8)
    assert family_of(of(differences)).seeds == 8
    assert family_of(of(differences[:7])) == sidak(3)
    without = of(differences)
    del without[1][4]
    assert family_of(without) == sidak(3)
    many = np.random.default_rng(0).standard_normal((9, MOST_CORRELATED + 1))
    assert family_of(of(many)) == sidak(MOST_CORRELATED + 1)
    assert family_of([]).size == 0


def test_the_same_differences_give_the_same_family_to_the_last_bit() -> None:
    differences = with_correlation(alike(5, 0.5), 8)
    first, again = correlated(differences), correlated(differences.copy())
    assert first.level == again.level
    assert [first.adjust(t, 8) for t in (1.0, 3.0, 9.0)] == [again.adjust(t, 8) for t in (1.0, 3.0, 9.0)]


@pytest.mark.parametrize("n", [3, 6, 8, 12])
def test_interval_p_and_verdict_agree_at_their_very_border(n: int) -> None:
    """Means at the end of the interval, give or take a rounding; what is printed says the same as the verdict."""
    differences = with_correlation(alike(4, 0.5), n) if n >= 8 else np.zeros((n, 4))
    family = family_of(of(differences))
    half = family.critical(n) * 0.02 / math.sqrt(n)
    seen = set()
    for border in (half, 0.05 - half):
        for shift in (0.0, *(sign * 10.0**-k for sign in (1, -1) for k in range(4, 17))):
            found = estimate(border + shift, 0.02, n, family, margin=0.05)
            verdict = judge(found, higher_is_better=False, margin=0.05)
            low, high = map(float, interval(found.low, found.high, 0.05).strip("[]").split(", "))
            p, p_same = (float(p_value(value).removeprefix("< ")) for value in (found.p, found.p_equivalence))
            assert (low > 0) == (found.low > 0) == (found.p <= LEVEL) == (p <= LEVEL) == (verdict.word == "worse")
            same = found.high < 0.05 and found.low > -0.05
            assert (high < 0.05 and low > -0.05) == same == (found.p_equivalence <= LEVEL) == (p_same <= LEVEL)
            assert verdict.equivalent == same
            seen.add((verdict.word, same))
    assert len(seen) >= 2


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.049996, "0.0500"),
        (0.05, "0.0500"),
        (0.050001, "0.050001"),
        (0.06, "0.0600"),
        (9e-5, "< 0.0001"),
        (math.nan, "—"),
    ],
)
def test_a_p_near_the_level_is_printed_in_as_many_digits_as_tell_its_side(value: float, told: str) -> None:
    assert p_value(value) == told


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.01, 0.02, "[+0.0100, +0.0200]"),
        (0.00001, 0.02, "[+0.00001, +0.02000]"),
        (-0.00001, 0.02, "[-0.00001, +0.02000]"),
        (-0.01004, 0.002, "[-0.0100, +0.0020]"),
    ],
)
def test_an_interval_is_printed_on_the_side_of_zero_where_it_is(low: float, high: float, told: str) -> None:
    assert interval(low, high) == told
    assert interval(-0.01004, 0.002, 0.01) == "[-0.01004, +0.00200]"


# "Done when" asks for 10,000 families, which scripts/benchmark statistics simulates: these are fewer.


@pytest.mark.parametrize(("seeds", "families"), [(6, 2000), (8, 200)])
@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize("distribution", ["normal", "t3"])
def test_the_table_errs_as_seldom_as_it_says_and_finds_as_much_as_holm(
    distribution: str, correlation: float, seeds: int, families: int
) -> None:
    found = benchmark_statistics.simulate(distribution, correlation, seeds, families)
    # Holm's error is at most 5%; that of as few families varies more than the difference between the two.
    assert found.error["table"] <= found.error["Holm t"] + 0.015
    assert found.one["table"] >= found.one["Holm t"] - benchmark_statistics.LOST_POWER
    assert found.contradictions == 0
    assert found.one["table"] > 0.7, "the effect is one that is found"
    if seeds == 6:
        assert found.one["Holm flips"] == 0, "2 / 2⁶ · 5 > 0.05"
