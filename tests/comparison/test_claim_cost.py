"""Seeds and seconds of a claim, against powers, quantiles and limits that numpy alone integrates in float64."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from losslab.comparison.claim_cost import (
    CONFIDENCE,
    ENOUGH,
    ClaimCost,
    Deviation,
    are_alike,
    deviation_of,
    deviations_of,
    pooled,
    seeds_for,
    seeds_needed,
    unpaired_seeds_for,
)
from losslab.comparison.simultaneous import LEVEL, sidak
from losslab.comparison.statistics import POWER, SEEDS_FOR_A_CLAIM, paired, power_of_t

Array = NDArray[np.float64]
_erfc = np.vectorize(math.erfc, otypes=[float])


@cache
def chi(df: int) -> tuple[Array, Array]:
    """Nodes and weights of the distribution of s / σ, where s has so many degrees of freedom."""
    z = np.linspace(1e-6, 1 + 9 / math.sqrt(df), 4001)
    log = (df - 1) * np.log(z) - df * z**2 / 2 + df / 2 * math.log(df / 2) + math.log(2) - math.lgamma(df / 2)
    weights = np.exp(log)
    return z, weights / weights.sum()


def rejected(shift: float, df: int, critical: float) -> float:
    """P(|T| > critical) of a noncentral T: a normal about `shift`, over an independent s / σ."""
    s, weights = chi(df)
    return float(weights @ (_erfc((critical * s - shift) / 2**0.5) + _erfc((critical * s + shift) / 2**0.5)) / 2)


def bisect(below: float, above: float, is_low: Callable[[float], bool]) -> float:
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if is_low(middle) else (below, middle)
    return above


@cache
def critical_of(df: int, level: float) -> float:
    return bisect(0.0, 60.0, lambda t: rejected(0.0, df, t) > level)


def reference_power(effect: float, n: int, level: float) -> float:
    return rejected(effect * math.sqrt(n), n - 1, critical_of(n - 1, level))


@pytest.mark.parametrize("level", [LEVEL, sidak(5).level])
@pytest.mark.parametrize(("effect", "n"), [(0.1, 6), (1.0, 8), (0.55, 24), (0.2, 200), (3.0, 12)])
def test_the_power_is_that_of_the_noncentral_t(effect: float, n: int, level: float) -> None:
    assert power_of_t(effect, n, level) == pytest.approx(reference_power(effect, n, level), abs=2e-6)


@pytest.mark.parametrize("losses", [1, 5])
@pytest.mark.parametrize("effect", [0.15, 0.4, 0.9, 1.3])
def test_one_seed_fewer_would_not_do(effect: float, losses: int) -> None:
    level = sidak(losses).level
    n = seeds_for(effect, level=level)
    assert n > SEEDS_FOR_A_CLAIM
    assert reference_power(effect, n, level) >= POWER > reference_power(effect, n - 1, level)


def test_a_claim_takes_six_seeds_and_a_very_small_difference_any_number() -> None:
    assert seeds_for(50.0) == unpaired_seeds_for(50.0) == SEEDS_FOR_A_CLAIM
    z = 1.959963984540054 + 0.8416212335729143
    assert seeds_for(0.001) == math.ceil((z / 0.001) ** 2)
    below, above = seeds_for(z / math.sqrt(9_990)), seeds_for(z / math.sqrt(10_010))
    assert 0 < above - below <= 22  # no step where the z test begins


@pytest.mark.parametrize("effect", [0.2, 0.8])
def test_without_pairs_it_is_the_t_test_of_two_samples(effect: float) -> None:
    n = unpaired_seeds_for(effect)

    def power(n: int) -> float:
        return rejected(effect * math.sqrt(n / 2), 2 * n - 2, critical_of(2 * n - 2, LEVEL))

    assert power(n) >= POWER > power(n - 1)


@pytest.mark.parametrize("df", [2, 7, 30])
@pytest.mark.parametrize("confidence", [0.025, 0.8, 0.975])
def test_a_limit_is_a_quantile_of_chi_square(df: int, confidence: float) -> None:
    s, weights = chi(df)
    below = np.interp(1 / Deviation(1.0, df).upper(confidence), s, np.cumsum(weights))
    assert below == pytest.approx(1 - confidence, abs=1e-3)


def test_the_interval_of_four_seeds_is_forty_three_fold() -> None:
    low, high = Deviation(0.02, 3).interval()
    assert (high / low) ** 2 == pytest.approx(43.32, abs=0.01)
    assert low < 0.02 < high


def test_an_upper_limit_holds_in_four_of_five_pilots() -> None:
    draws = np.random.default_rng(0).standard_normal((4000, 8))
    held = np.mean([found.upper() >= 1 for row in draws if (found := deviation_of(row.tolist())) is not None])
    assert held == pytest.approx(CONFIDENCE, abs=0.02)


def test_pooled_losses_have_more_freedom_the_less_they_move_together() -> None:
    noise = np.random.default_rng(1).standard_normal((10, 3))
    alike = noise[:, :1] + 1e-6 * noise

    def found(columns: Array) -> Deviation:
        return pooled([dict(enumerate(column)) for column in columns.T.tolist()])

    assert found(alike).df == pytest.approx(9, rel=1e-4)
    apart, _ = np.linalg.qr(noise - noise.mean(axis=0))
    assert found(apart).df == pytest.approx(27)
    assert 9 < found(noise + noise[:, :1]).df < 27
    squares = ((noise - noise.mean(axis=0)) ** 2).sum()
    assert found(noise).std == pytest.approx(math.sqrt(squares / 27))


def test_losses_of_which_one_is_noisier_are_not_pooled() -> None:
    noise = np.random.default_rng(2).standard_normal((8, 2))
    quiet, loud = (dict(enumerate(column)) for column in (noise * [0.01, 0.1]).T.tolist())
    found = deviations_of({"quiet": quiet, "loud": loud, "once": {1: 0.5}, "same": {1: 0.5, 2: 0.5}})
    assert found.keys() == {"quiet", "loud"}
    assert found["loud"].std > 3 * found["quiet"].std and found["loud"].df == 7
    twin = {seed: -value for seed, value in quiet.items()}
    one = deviations_of({"quiet": quiet, "twin": twin})
    assert one["quiet"] is one["twin"] and one["quiet"].df == pytest.approx(7)


def test_bartletts_test_finds_as_many_as_its_level() -> None:
    draws = np.random.default_rng(3).standard_normal((1500, 3, 6)).std(axis=2, ddof=1)
    alike = np.mean([are_alike([Deviation(float(std), 5) for std in row]) for row in draws])
    assert alike == pytest.approx(0.75, abs=0.03)


def test_a_cost_of_few_seeds_is_an_interval_and_no_number() -> None:
    few = ClaimCost(deviation=Deviation(0.02, ENOUGH - 1), margin=0.01, seconds_a_pair=30.0)
    assert few.seeds is None and few.planned is None and few.seconds(few.seeds) is None
    low, high = few.interval
    assert low < seeds_for(0.5) < high
    many = ClaimCost(deviation=Deviation(0.02, 23), margin=0.01, seconds_a_pair=30.0)
    assert many.seeds == seeds_for(0.5) and many.seconds(many.seeds) == 30.0 * seeds_for(0.5)
    assert many.planned is not None and many.interval[0] < many.seeds < many.planned < many.interval[1]
    unpaired = ClaimCost(deviation=Deviation(0.02, 23), margin=0.01, paired=False)
    assert unpaired.seeds == unpaired_seeds_for(0.5) and unpaired.seconds(unpaired.seeds) is None


def test_the_planned_seeds_have_the_power_in_four_of_five_pilots() -> None:
    """Pilots of eight seeds and five losses, whose differences share the baseline's noise; the deviation is 1."""
    random, level = np.random.default_rng(4), sidak(5).level
    needed = seeds_for(0.5, level=level)
    assert reference_power(0.5, needed, level) >= POWER > reference_power(0.5, needed - 1, level)
    enough = 0
    for _ in range(400):
        draws = math.sqrt(0.5) * (random.standard_normal((8, 1)) + random.standard_normal((8, 5)))
        found = deviations_of({loss: dict(enumerate(own)) for loss, own in enumerate(draws.T.tolist())})
        planned = ClaimCost(deviation=found[0], margin=0.5, level=level).planned
        assert planned is not None
        enough += planned >= needed
    assert enough / 400 >= 0.78


def test_a_large_difference_needs_few_seeds_and_none_at_all_a_margin() -> None:
    def needed(mean: float, *, margin: float | None = None, losses: int = 1) -> int | None:
        result = replace(paired([0.01, 0.02, 0.03, -0.01]), mean=mean, level=sidak(losses).level)
        return seeds_needed(result, Deviation(0.02, 20), margin=margin).about

    assert needed(0.05) == SEEDS_FOR_A_CLAIM
    many = needed(0.01)
    assert many == seeds_for(0.5) and 30 <= many <= 37  # (1.96 + 0.84)² · 4 = 31.4, and t for z
    assert (needed(0.01, losses=5) or 0) > many
    assert needed(0.0) is None
    same = needed(0.0, margin=0.01)
    assert same is not None and 42 <= same <= 48  # (1.96 + 1.28)² · 4 = 42: the interval, at 95%, lies inside
