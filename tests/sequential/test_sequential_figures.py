"""Errors and seeds of growing sweeps, as scripts/benchmark sequential prints them for 10,000 families, on a few."""

import numpy as np
import pytest

from benchmarks import sequential as figures

WORDS = {-1: "better", 1: "worse", 2: "equivalent", 0: None}


@pytest.mark.parametrize("distribution", ["normal", "t3"])
def test_errors_and_seeds_of_some_families(distribution: str) -> None:
    found = figures.simulate(distribution, 0.0, 200)
    # 5% and four standard errors of 200 families; the benchmark holds the limits themselves.
    assert max(found.error.values()) <= 0.05 + 4 * 0.0155
    assert found.error["0"] <= found.missed, "an error is an interval that misses its mean"
    assert found.ratio.mean() <= 0.7 and found.ratio[0] <= 1.0
    assert (np.diff(found.seeds[1:]) < 0).all(), "larger differences take fewer seeds"
    assert found.power[-1] > 0.99 > found.power[1]


def test_the_benchmark_ends_as_the_rule_does() -> None:
    differences = figures.noise("normal", 0.5, 6, figures.RULE.max_seeds)
    effects = np.array(figures.MIXED)
    ends = figures.grow(differences, effects)
    for family, seeds, words in zip(differences, ends.seeds, ends.word, strict=True):
        for own, effect, seed, word in zip(family, effects, seeds, words, strict=True):
            decided = figures.RULE.decided_at(own + effect * figures.MARGIN)
            assert decided == ((seed, WORDS[int(word)]) if word else None)


def test_seeds_of_equal_power_lie_between_whole_ones() -> None:
    by_seeds = np.array([0.0, 0.0, 0.2, 0.6, 1.0])
    assert figures.seeds_for(0.4, by_seeds) == pytest.approx(2.5)
    assert figures.seeds_for(0.6, by_seeds) == pytest.approx(3.0)
    assert figures.seeds_for(1.1, by_seeds) == float("inf")
