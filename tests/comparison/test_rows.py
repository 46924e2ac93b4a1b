"""Rows and verdicts on runs whose differences are known."""

import itertools
import math

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, read, rows_of
from scipy import stats

from losslab.errors import UserError


def test_a_known_effect_is_covered_by_an_interval_narrower_than_the_unpaired_one(paired_sweep: Sweep) -> None:
    rows = rows_of(paired_sweep)
    result = rows["square"].paired
    assert result.n == 6
    assert result.mean == pytest.approx(0.05 + 0.0005 / 6)
    assert result.low < 0.05 < result.high
    assert result.low > 0.04
    values = [list(rows[label].values.values()) for label in ("cross_entropy", "square")]
    unpaired = stats.ttest_ind(values[1], values[0], equal_var=False).confidence_interval(0.95)
    assert unpaired.low < 0 < unpaired.high, "seeds differ more than losses"
    assert result.high - result.low < (unpaired.high - unpaired.low) / 50
    assert result.p_sign_flip == 2 / 2**6


def test_the_best_checkpoint_counts_and_not_the_last(paired_sweep: Sweep) -> None:
    assert rows_of(paired_sweep)["cross_entropy"].mean == pytest.approx(3.2)


def test_three_seeds_are_a_hint(sweep: Sweep) -> None:
    for seed, level in enumerate([3.0, 3.4, 2.9], start=1):
        sweep.add("cross_entropy", seed, level)
        sweep.add("square", seed, level - 0.05 + seed * 1e-4)
    assert rows_of(sweep)["square"].verdict.text == "better (3 seeds: a hint, not a claim)"
    assert rows_of(sweep, baseline="square")["cross_entropy"].verdict.text == "worse (3 seeds: a hint, not a claim)"


def test_several_losses_are_adjusted_together_and_the_best_comes_first(sweep: Sweep) -> None:
    effects = {"square": 0.02, "hinge": 0.01, "focal": 0.0}
    for seed, level in enumerate([3.0, 3.4, 2.9, 3.2, 3.6, 3.1], start=1):
        sweep.add("cross_entropy", seed, level)
        for i, (loss, effect) in enumerate(effects.items()):
            sweep.add(loss, seed, level + effect + 0.01 * (-1) ** (seed * (i + 1)) * ((seed + i) % 3))
    rows = rows_of(sweep)
    for row in (rows[loss] for loss in effects):
        r = row.paired
        assert r.critical == pytest.approx(stats.t.isf((1 - 0.95 ** (1 / 3)) / 2, 5)), "Šidák's, of three losses"
        half = r.critical * r.std / 6**0.5
        assert (r.low, r.high) == pytest.approx((r.mean - half, r.mean + half))
        assert r.p == pytest.approx(1 - (1 - r.p_t) ** 3)
    assert list(rows) == sorted(rows, key=lambda label: rows[label].mean)


def test_more_top1_is_better(sweep: Sweep) -> None:
    for seed in range(1, 7):
        sweep.add("cross_entropy", seed, metrics={"test/top1": 0.4 + seed / 100})
        sweep.add("square", seed, metrics={"test/top1": 0.5 + seed / 100 + seed**2 * 1e-4})
    rows = rows_of(sweep, metric="test/top1")
    assert list(rows) == ["square", "cross_entropy"]
    assert rows["square"].verdict.word == "better"


def test_the_newest_of_repeated_runs_is_used(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 4.0, started="2026-01-01")
    sweep.add("square", 1, 2.0, started="2026-01-02")
    assert rows_of(sweep)["square"].mean == 2.0


def test_without_a_shared_seed_there_is_no_verdict(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 2, 3.0)
    row = rows_of(sweep)["square"]
    assert (row.paired, row.verdict.text) == (None, "no seed in common with the baseline")


def test_every_other_metric_of_test_is_judged_on_its_own(sweep: Sweep) -> None:
    for seed in range(1, 7):
        for loss, shift in (("cross_entropy", 0.0), ("square", -0.2)):
            metrics = {
                "test/top1": 0.5 + seed / 100 + shift / 10 + seed**2 * 1e-4 * shift,
                "test/objective": 1.0,
                "test/scale": 1.0,
                "test/entropy": 2.0,
                "val/nll": 2.0,
            }
            sweep.add(loss, seed, 3.0 + seed + shift + shift * seed / 100, metrics=metrics)
    c = comparison_of(sweep)
    assert list(c.also) == ["test/top1"], "the others say nothing of which loss is better"
    assert [row.verdict.word for row in c.also["test/top1"]] == ["baseline", "worse"]


@pytest.mark.parametrize("metric", ["test/objective", "test/scale", "step", "objective"])
def test_what_says_nothing_of_which_loss_is_better_is_refused(metric: str, sweep: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        sweep.add(loss, 1, 3.0, metrics={"test/objective": 1.0, "test/scale": 1.0, "test/nll": 3.1})
    with pytest.raises(UserError) as caught:
        rows_of(sweep, metric=metric)
    assert str(caught.value) == f"{metric} does not say which loss is better; choose from test/nll, test/nll_scaled"


@pytest.mark.parametrize(
    ("metric", "answer"),
    [
        ("test/nothing", "no run has the metric 'test/nothing'; choose another --metric: there are test/nll_scaled"),
        ("nll_scaled", "no run has the metric 'nll_scaled'; choose another --metric: did you mean 'test/nll_scaled'?"),
        ("accuracy", "no run has the metric 'accuracy'; choose another --metric: did you mean 'test/top1'?"),
        ("test/nll", "test/nll is not finite in any of these runs; choose another --metric"),
    ],
)
def test_a_metric_that_no_run_has_is_told(metric: str, answer: str, sweep: Sweep) -> None:
    top1 = {"test/top1": 0.5} if metric == "accuracy" else {}
    sweep.add("cross_entropy", 1, 3.0, metrics={"test/nll": None, **top1})
    with pytest.raises(UserError) as caught:
        rows_of(sweep, metric=metric)
    assert str(caught.value) == answer


def test_a_verdict_over_survivors_says_so(sweep: Sweep) -> None:
    for seed in range(1, 7):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 2.5 + seed + seed / 1000)
    sweep.add("cross_entropy", 7, 10.0)
    sweep.add("square", 7, status="diverged")
    row = next(row for row in comparison_of(sweep).rows if row.label == "square")
    assert row.verdict.text == "better (without those lost: square 1 diverged)"


def test_the_sign_flip_stands_beside_and_holds_no_verdict_back(sweep: Sweep) -> None:
    for seed, difference in enumerate([-0.05, -0.05, -0.06, -0.05, -0.06, 0.01], start=1):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.0 + seed + difference)
    c = comparison_of(sweep)
    row = next(row for row in c.rows if row.label == "square")
    assert row.paired.p < 0.05 and row.paired.p_sign_flip == 0.0625
    assert row.verdict.text == "better"
    assert "0.0625" in next(line for line in read(c).splitlines() if line.startswith("| square"))


def test_a_loss_that_lost_a_seed_leaves_sidaks_c_for_each_at_its_own_pairs(sweep: Sweep) -> None:
    random = np.random.default_rng(0)
    for seed in range(1, 11):
        level = random.standard_normal()
        for loss in ("cross_entropy", "square", "focal"):
            if (loss, seed) != ("focal", 10):
                sweep.add(loss, seed, 3.0 + level + 0.01 * random.standard_normal())
    rows = rows_of(sweep)
    level = (1 - 0.95**0.5) / 2
    assert rows["square"].paired.critical == pytest.approx(stats.t.isf(level, 9))
    assert rows["focal"].paired.critical == pytest.approx(stats.t.isf(level, 8))
    sweep.add("focal", 10, 3.0)
    complete = rows_of(sweep)["square"].paired
    assert complete.joint and complete.critical < rows["square"].paired.critical


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (0.05, "undecided (no spread: every seed differs by +0.05; is the seed used?)"),
        (0.0, "undecided (no spread: equal in every seed; are they the same loss, or is the seed not used?)"),
    ],
)
def test_differences_without_spread_are_no_evidence(difference: float, text: str, sweep: Sweep) -> None:
    """Three equal differences gave p < 0.0001. These are equal up to float64's rounding."""
    for seed in range(1, 4):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.0 + seed + difference)
        sweep.add("focal", seed, 3.0 + seed + 0.2 + 0.001 * seed)
    c = comparison_of(sweep)
    row = next(row for row in c.rows if row.label == "square")
    assert (row.verdict.word, row.verdict.text, row.needed) == ("undecided", text, None)
    assert not row.paired.spread and math.isnan(row.paired.p) and math.isnan(row.paired.low)
    summary = read(c)
    told = next(line for line in summary.splitlines() if line.startswith("- square against"))
    assert "There is no spread, and so no interval and no p: " in told and "seed" in told
    assert rows_of(sweep)["focal"].verdict.word == "worse", "the others are judged as before"


def test_a_certain_difference_within_the_margin_is_told_as_both(sweep: Sweep) -> None:
    for seed in range(1, 7):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.0 + seed + 0.005 + 1e-4 * (-1) ** seed)
    c = comparison_of(sweep)
    row = next(row for row in c.rows if row.label == "square")
    assert row.verdict.text == "worse, but equivalent (within ±0.01)"
    assert row.paired.low > 0 and row.paired.high < 0.01
    assert "square is worse than cross_entropy, but equivalent: +0.0050 nats per token [" in read(c)


def test_seeds_still_needed_agree_with_the_verdict(sweep: Sweep) -> None:
    """As many seeds of the same difference and spread as are asked for would decide."""
    differences = [0.03, -0.01, 0.04, 0.02, -0.02, 0.05]
    for seed, difference in enumerate(differences, start=1):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        for loss in ("square", "focal", "hinge"):
            sweep.add(loss, seed, 3.0 + seed + difference * (1 + 0.01 * len(loss)))
    row = rows_of(sweep)["square"]
    assert row.verdict.word == "undecided"
    low, high = row.deviation.interval()
    for n, std in ((row.needed.low, low), (row.needed.about, row.deviation.std), (row.needed.high, high)):
        power, less = (
            stats.nct.sf(stats.t.isf((1 - 0.95 ** (1 / 3)) / 2, m - 1), m - 1, row.paired.mean / std * m**0.5)
            for m in (n, n - 1)
        )
        assert power >= 0.8 and (less < 0.8 or n == 6)
    assert not row.needed.is_enough, "three losses that move together have the freedom of one"


def test_all_pairs_are_one_family(sweep: Sweep) -> None:
    random = np.random.default_rng(1)
    for seed in range(1, 7):
        level = random.standard_normal()
        for i, loss in enumerate(("cross_entropy", "square", "focal", "hinge")):
            sweep.add(loss, seed, 3.0 + level + 0.1 * i + 0.01 * random.standard_normal())
    c = comparison_of(sweep, all_pairs=True)
    order = ["cross_entropy", "square", "focal", "hinge"]
    assert [(pair.first, pair.second) for pair in c.pairs] == list(itertools.combinations(order, 2))
    assert [pair.paired.critical for pair in c.pairs] == pytest.approx([stats.t.isf((1 - 0.95 ** (1 / 6)) / 2, 5)] * 6)
    assert {pair.verdict.word for pair in c.pairs} == {"better"} and all(pair.paired.high < 0 for pair in c.pairs)
    square, hinge = (
        {run.seed: run.value(c.metric) for run in c.runs if run.loss == loss} for loss in ("square", "hinge")
    )
    pair = next(pair for pair in c.pairs if (pair.first, pair.second) == ("square", "hinge"))
    assert pair.paired.mean == pytest.approx(np.mean([square[seed] - hinge[seed] for seed in square]))
    assert "## All pairs" in read(c) and "simultaneous over all 6 pairs" in read(c)
    assert comparison_of(sweep).pairs is None


def test_one_pair_is_no_family_of_many(sweep: Sweep) -> None:
    for seed in range(1, 7):
        sweep.add("cross_entropy", seed, 3.0)
        sweep.add("square", seed, 3.1 + seed / 100)
    summary = read(comparison_of(sweep, all_pairs=True))
    assert "test/nll_scaled: the first loss less the second on shared seeds.\n" in summary
    assert "simultaneous over all" not in summary


def test_an_equivalence_on_one_metric_is_checked_on_the_others(sweep: Sweep) -> None:
    for seed in range(1, 7):
        level = 3.0 + seed / 10
        sweep.add("cross_entropy", seed, level, metrics={"test/nll": level})
        sweep.add("square", seed, level + (-1) ** seed * seed * 1e-5, metrics={"test/nll": level + 0.4 + seed / 1000})
    summary = read(comparison_of(sweep))
    assert (
        "square is equivalent to cross_entropy" in summary
        and "p of equivalence" in summary
        and "But it is worse on test/nll." in summary
    )
