"""The cost of a claim in the report, the summary and the table, of made-up runs."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, page_text, read
from made_runs import edit_record as edit

from losslab.comparison.claim_cost import seeds_for, unpaired_seeds_for
from losslab.comparison.output.claim_prose import cost_of_claim, duration
from losslab.comparison.simultaneous import sidak

START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(sweep: Sweep, losses: dict[str, float], seeds: int, *, level: float = 0.1) -> None:
    """Losses, each with exactly this deviation of its differences to a baseline whose values deviate by `level`."""
    random = np.random.default_rng(7)
    levels = 3 + level * random.standard_normal(seeds)
    noise = {loss: random.standard_normal(seeds) for loss in losses}
    for seed in range(seeds):
        sweep.add("cross_entropy", seed, levels[seed])
        for loss, std in losses.items():
            sweep.add(loss, seed, levels[seed] + 0.02 + std * noise[loss][seed] / noise[loss].std(ddof=1))


def test_many_seeds_make_a_number_with_an_interval(sweep: Sweep) -> None:
    fill(sweep, {"square": 0.02}, 12)
    c = comparison_of(sweep)
    assert c.claims is not None
    (claim,) = c.claims.of
    assert claim.cost.seeds == seeds_for(0.5)
    assert claim.unpaired.seeds == unpaired_seeds_for(0.01 / claim.unpaired.deviation.std)
    assert claim.unpaired.seeds > 5 * claim.cost.seeds
    low, high = claim.cost.interval
    told = f"with power 0.8 takes about {claim.cost.seeds} seeds ({low}–{high}) of square and cross_entropy"
    assert f"to find a difference of 0.01 nats per token in test/nll_scaled {told}" in read(c)
    assert told in page_text(c)


def test_few_seeds_make_an_interval_alone(sweep: Sweep) -> None:
    fill(sweep, {"square": 0.02, "focal": 0.02}, 3)
    c = comparison_of(sweep)
    assert c.claims is not None and not c.claims.is_enough
    (told,) = cost_of_claim(c)
    low, high = c.claims.of[0].cost.interval
    assert f"takes {low} to {high:,} seeds of a loss and cross_entropy" in told
    assert " 3 seeds of 2 losses leave it that open." in told
    assert "about" not in told
    for row in c.rows:
        if row.needed is not None:
            assert f"Between {row.more(row.needed.low)} and " in read(c)


def test_each_comparison_is_at_the_level_of_the_family(sweep: Sweep) -> None:
    fill(sweep, {"square": 0.02, "focal": 0.02, "hinge": 0.02}, 7)
    c = comparison_of(sweep)
    assert c.claims is not None and c.claims.is_pooled and c.claims.is_enough
    cost = c.claims.of[0].cost
    assert cost.level == sidak(3).level and cost.seeds == seeds_for(0.01 / cost.deviation.std, level=cost.level)
    assert cost.deviation.df > 6


def test_losses_of_unequal_noise_have_their_own_numbers(sweep: Sweep) -> None:
    fill(sweep, {"square": 0.1, "focal": 0.005}, 10)
    (told,) = cost_of_claim(comparison_of(sweep))
    assert told.index(" of focal and cross_entropy, ") < told.index(" of square and cross_entropy, ")


def test_a_metric_without_a_margin_has_no_cost(sweep: Sweep) -> None:
    for seed in range(4):
        sweep.add("cross_entropy", seed, 3.0 + seed, metrics={"test/error": 0.1 * seed})
        sweep.add("square", seed, 3.1 + seed, metrics={"test/error": 0.2 * seed})
    assert comparison_of(sweep, metric="test/error").claims is None
    assert comparison_of(sweep, metric="test/error", margin=0.1).claims is not None


def test_time_is_that_of_both_runs_shared_by_those_that_ran_at_once(sweep: Sweep) -> None:
    """Runs of 60 s (square: 120 s), two at a time."""
    random = np.random.default_rng(7)
    for seed in range(8):
        for loss, seconds in (("cross_entropy", 60), ("square", 120)):
            folder = sweep.add(loss, seed, 3 + 0.02 * random.standard_normal())
            begun = START + timedelta(seconds=120 * seed)
            ended = begun + timedelta(seconds=seconds)
            edit(folder, timing={"started": begun.isoformat(), "updated": ended.isoformat()})
    c = comparison_of(sweep)
    assert c.claims is not None
    # A run of cross_entropy has square's beside it all the time, and one of square for half of its time.
    assert c.claims.at_once == pytest.approx(1.75)
    cost = c.claims.of[0].cost
    assert cost.seconds_a_pair == pytest.approx(180 / 1.75)
    assert cost.seeds is not None
    assert f", {duration(cost.seeds * 180 / 1.75)} (" in cost_of_claim(c)[0]
    assert ", with 2 runs at once. Without pairs" in cost_of_claim(c)[0]


def test_durations_are_told_in_units_that_people_count_in() -> None:
    told = [duration(seconds) for seconds in (40, 130, 7000, 9000, 86400 * 5)]
    assert told == ["40 s", "2 min", "117 min", "2.5 h", "5.0 days"]
