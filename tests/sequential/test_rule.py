"""Bounds, intervals and verdicts of the rule that stops a growing sweep, and what repeated looks do to a plain p."""

import math

import numpy as np
import pytest
from scipy import stats

from losslab.errors import UserError
from losslab.sequential import rule as rule_file
from losslab.sequential.looks import error_of_looks
from losslab.sequential.rule import FIRST_LOOK, Rule
from losslab.sequential.t_paths import Path


def t_paths(paths: int, seeds: int, random: np.random.Generator) -> np.ndarray:
    """[paths, seeds + 1] of |T_n|, in float64 and by its definition; 0 below two."""
    values = random.standard_normal((paths, seeds))
    found = np.zeros((paths, seeds + 1))
    for n in range(2, seeds + 1):
        own = values[:, :n]
        found[:, n] = np.abs(own.mean(axis=1)) / (own.std(axis=1, ddof=1) / math.sqrt(n))
    return found


def test_the_spent_error_is_that_of_drawn_paths() -> None:
    paths, seeds = 100_000, 9
    t = t_paths(paths, seeds, np.random.default_rng(0))
    bounds = np.concatenate([[math.inf], Rule(margin=1.0, max_seeds=seeds, losses=1).bounds()])
    crossed = np.maximum.accumulate(t >= bounds, axis=1).mean(axis=0)
    for n in range(FIRST_LOOK, seeds + 1):
        expected = 0.05 * (n / seeds) ** 2
        assert crossed[n] == pytest.approx(expected, abs=4 * math.sqrt(expected / paths)), n


def test_two_looks_agree_with_an_integral_over_both() -> None:
    """P(|T₂| < a, |T₃| ≥ b), over the angles of a point that is uniform on the sphere."""
    a, b = 4.0, 3.0
    grid = (np.arange(700) + 0.5) / 700
    z, turn = np.meshgrid(2 * grid - 1, 2 * math.pi * grid + 1e-3)
    x = np.stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z])
    two = np.abs(x[:2].mean(axis=0)) / x[:2].std(axis=0, ddof=1) * math.sqrt(2)
    three = np.abs(x.mean(axis=0)) / x.std(axis=0, ddof=1) * math.sqrt(3)
    expected = float(((two < a) & (three >= b)).mean())
    assert Path(2).step(a).crossing(b) == pytest.approx(expected, abs=5e-4)


def test_without_a_bound_before_it_a_look_is_a_t_test() -> None:
    path = Path(3)
    for n in range(3, 9):
        assert path.n == n
        assert path.crossing(2.5) == pytest.approx(2 * stats.t.sf(2.5, n - 1), rel=1e-12)
        path = path.step(math.inf)
    looked = Path(3).step(200.0).step(math.inf)
    assert looked.crossing(2.5) == pytest.approx(2 * stats.t.sf(2.5, 4), abs=2.5e-5)  # 200 is reached in 1 of 40,000


def test_bounds_are_the_same_everywhere_and_never_too_low() -> None:
    bounds = Rule(margin=0.01, max_seeds=40, losses=5).bounds()
    assert np.isinf(bounds[:5]).all() and np.isfinite(bounds[5:]).all()
    assert bounds[[5, 7, 11, 19, 39]].tolist() == [9.442, 7.416, 5.218, 3.982, 3.106]
    assert bounds[5] >= stats.t.isf(0.01 * (6 / 40) ** 2 / 2, 5) > bounds[5] - 1e-3
    assert (np.diff(bounds[6:]) < 0).all()
    with pytest.raises(ValueError, match="read-only"):
        bounds[0] = 1.0


def test_one_look_is_the_plain_interval() -> None:
    rule = Rule(margin=1.0, max_seeds=FIRST_LOOK, losses=1)
    values = [0.3, 0.1, 0.6, 0.2, -0.1, 0.4]
    low, high = rule.interval(values)
    plain = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((plain.low, plain.high), abs=1e-3)
    assert low <= plain.low and high >= plain.high


def test_the_number_of_nodes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from losslab.sequential import t_paths as file

    usual = rule_file._bounds.__wrapped__(60, 0.01)
    monkeypatch.setattr(file, "_DEGREE", 95)
    points, weights = np.polynomial.legendre.leggauss(96)
    monkeypatch.setattr(file, "_POINTS", points)
    monkeypatch.setattr(file, "_WEIGHTS", weights)
    np.testing.assert_array_equal(usual, rule_file._bounds.__wrapped__(60, 0.01))


def test_verdicts() -> None:
    rule = Rule(margin=0.5, max_seeds=40, losses=2)
    noise = np.random.default_rng(0).standard_normal(40)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    assert rule.verdict(noise * 0.1 - 2) == "better"
    assert rule.verdict(noise * 0.1 + 2) == "worse"
    assert rule.verdict(noise * 0.1) == "equivalent"
    assert rule.verdict(noise * 10) is None and rule.decided_at(noise * 10) is None
    assert rule.verdict([]) is None and rule.interval([]) == (-math.inf, math.inf)
    assert rule.verdict(noise[:5] * 0.1 - 2) is None and rule.interval(noise[:5]) == (-math.inf, math.inf)


def test_the_first_decision_stays() -> None:
    rule = Rule(margin=0.01, max_seeds=40, losses=1)
    noise = np.random.default_rng(0).standard_normal(20)
    values = np.concatenate([noise - 1, noise + 2.2])
    n, word = rule.decided_at(values) or (0, "")
    assert word == "better" and FIRST_LOOK < n < 20
    assert rule.verdict(values[: n - 1]) is None
    assert rule.interval(values[:n])[1] < 0 < rule.interval(values)[1]
    assert rule.verdict(values) == "better"


def test_intervals_are_those_of_their_definition() -> None:
    rule = Rule(margin=0.01, max_seeds=30, losses=3)
    values = 1e6 + 1e-2 * np.random.default_rng(1).standard_normal(30)
    found = rule.intervals(values)
    for n in (6, 7, 30):
        own = values[:n]
        half = rule.bounds()[n - 1] * own.std(ddof=1) / math.sqrt(n)
        assert found[n - 1] == pytest.approx((own.mean() - half, own.mean() + half), abs=1e-8)
        assert rule.interval(own) == pytest.approx(tuple(found[n - 1]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin": 0.0}, "below which"),
        ({"margin": math.inf}, "below which"),
        ({"max_seeds": 5}, "max_seeds=5: choose 6 to"),
        ({"max_seeds": 10_000}, "max_seeds=10000"),
        ({"losses": 0}, "none beside the baseline"),
        ({"level": 1.0}, "no probability"),
    ],
)
def test_what_makes_no_rule_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rule(**{"margin": 0.01, "max_seeds": 40, "losses": 2, **wrong})
    with pytest.raises(UserError, match="41 seeds, where the rule ends at max_seeds=40"):
        Rule(margin=0.01, max_seeds=40, losses=2).interval(np.zeros(41))


@pytest.mark.parametrize(("looks", "level"), [((3, 6, 12), 0.05), ((2, 4), 0.05), ((4, 5, 6, 7), 0.01)])
def test_the_error_of_looks_is_that_of_drawn_paths(looks: tuple[int, ...], level: float) -> None:
    paths = 100_000
    t = t_paths(paths, max(looks), np.random.default_rng(3))
    rejected = np.zeros(paths, dtype=bool)
    for n in looks:
        rejected |= t[:, n] >= stats.t.isf(level / 2, n - 1)
    error = error_of_looks(looks, level=level)
    assert error == pytest.approx(rejected.mean(), abs=4 * math.sqrt(error / paths))


def test_one_look_keeps_its_level() -> None:
    assert error_of_looks([7]) == pytest.approx(0.05, rel=1e-12)
    for wrong in ([], [1, 3], [4, 4], [6, 3]):
        with pytest.raises(ValueError, match="increase"):
            error_of_looks(wrong)
