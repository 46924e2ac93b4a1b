"""Rows and verdicts on runs whose differences are known."""

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
    first, second, third = sorted((rows[loss] for loss in effects), key=lambda row: row.paired.p_t)
    adjusted = [min(1.0, factor * row.paired.p_t) for factor, row in ((3, first), (2, second), (1, third))]
    running = [adjusted[0], max(adjusted[:2]), max(adjusted)]
    assert [row.p_holm for row in (first, second, third)] == pytest.approx(running)
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


def test_every_other_yardstick_of_test_is_judged_on_its_own(sweep: Sweep) -> None:
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
        ("test/nll", "test/nll is not finite in any of these runs; choose another --metric"),
    ],
)
def test_a_metric_that_no_run_has_is_told(metric: str, answer: str, sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0, metrics={"test/nll": None})
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


def test_what_only_the_sign_flip_holds_back_is_told(sweep: Sweep) -> None:
    for seed, difference in enumerate([-0.05, -0.05, -0.06, -0.05, -0.06, 0.01], start=1):
        sweep.add("cross_entropy", seed, 3.0)
        sweep.add("square", seed, 3.0 + difference)
    c = comparison_of(sweep)
    row = next(row for row in c.rows if row.label == "square")
    assert row.p_holm < 0.05 and row.verdict.word == "undecided" and row.more_seeds is None
    assert "The t test finds a difference; the exact sign-flip test does not (p = 0.0625)." in read(c)


def test_an_equivalence_on_one_yardstick_is_checked_on_the_others(sweep: Sweep) -> None:
    for seed in range(1, 7):
        level = 3.0 + seed / 10
        sweep.add("cross_entropy", seed, level, metrics={"test/nll": level})
        sweep.add("square", seed, level + (-1) ** seed * seed * 1e-5, metrics={"test/nll": level + 0.4 + seed / 1000})
    summary = read(comparison_of(sweep))
    assert "square is equivalent to cross_entropy" in summary and "But it is worse on test/nll." in summary
