"""The table of a sweep that added seeds until each loss was decided: its intervals and verdicts, and no p."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, page_text, read, rows_of

from losslab.comparison.output.figure_list import pictures
from losslab.comparison.output.tables import to_csv
from losslab.sequential.ledger import Ledger, Terms

MARGIN = 0.02
METRIC = "test/nll_scaled"


def noise(loss: str, seeds: int) -> np.ndarray:
    return np.random.default_rng(len(loss)).standard_normal(seeds)


def grow(sweep: Sweep, ends: dict[str, tuple[int, float, float]], *, max_seeds: int = 20, **terms: Any) -> Ledger:
    """A sweep that stands so: loss → seeds, true difference and spread."""
    labels: dict[str, dict[str, Any]] = {"cross_entropy": {}, **{loss: {} for loss in ends}}
    plain: dict[str, Any] = {
        "metric": METRIC,
        "higher_is_better": False,
        "margin": MARGIN,
        "level": 0.05,
        "max_seeds": max_seeds,
        "first_seed": 1,
        "baseline": "cross_entropy",
        "losses": labels,
        "threads": 1,
    }
    ledger = Ledger.open(sweep.folder, Terms(**plain | terms))
    most = max(seeds for seeds, *_ in ends.values())
    for loss, (seeds, shift, spread) in {"cross_entropy": (most, 0.0, 0.0), **ends}.items():
        for seed in range(1, seeds + 1):
            value = 3.0 + seed / 100 + shift + spread * noise(loss, seeds)[seed - 1]
            further = {"test/nll": value + 0.1}
            run = sweep.add(loss, seed, value, metrics=further)
            ledger.runs.setdefault(loss, {})[seed] = run.name
    ledger._write()
    return ledger


def test_the_table_has_the_repeated_intervals_and_verdicts_of_the_sweep(sweep: Sweep) -> None:
    ledger = grow(sweep, {"square": (6, 1.0, 0.01), "focal": (12, 0.0, 0.005), "poly1": (20, 0.02, 0.04)})
    standings = ledger.standings()
    rows = rows_of(sweep)
    for loss, standing in standings.items():
        paired = rows[loss].paired
        assert paired is not None and rows[loss].verdict.word == standing.verdict
        assert (paired.low, paired.high) == pytest.approx((standing.low, standing.high), rel=1e-12)
        assert paired.n == standing.seeds and paired.critical == ledger.terms.rule.bounds()[paired.n - 1]
        assert math.isnan(paired.p) and math.isnan(paired.p_t) and math.isnan(paired.p_sign_flip)
        assert rows[loss].needed is None
    assert rows["square"].verdict.text == "worse (decided at 6 seeds)"
    assert rows["focal"].verdict.text == f"equivalent (within ±0.02; decided at {standings['focal'].seeds} seeds)"
    assert rows["poly1"].verdict.text == "undecided (20 seeds, the most that were allowed)"


def test_a_sweep_that_goes_on_says_of_no_loss_that_it_was_decided(sweep: Sweep) -> None:
    grow(sweep, {"square": (2, 1.0, 0.01), "focal": (3, 0.0, 0.005)})
    text = read(comparison_of(sweep))
    assert "It stands at 2 seeds of at most 20 so far, and the first look is at 6." in text
    assert "seed=auto gave each loss its own number of seeds (cross_entropy 3, focal 3, square 2)" in text
    assert "was decided" not in text and "took to decide" not in text


def test_what_is_read_of_it_says_how_it_stopped(sweep: Sweep) -> None:
    grow(sweep, {"square": (6, 1.0, 0.01), "focal": (12, 0.0, 0.005), "poly1": (20, 0.02, 0.04)})
    c = comparison_of(sweep, all_pairs=True)
    text = read(c)
    assert "difference [repeated 95%]" in text and "p (adjusted)" not in text and "sign-flip" not in text
    assert "which are added until each loss is decided: repeated 95% intervals" in text
    bounds = c.growing.terms.rule.bounds() if c.growing else np.zeros(20)
    assert f"c from {bounds[5]:.3f} at 6 seeds to {bounds[-1]:.3f} at 20" in text
    assert "square is worse than cross_entropy: +1.0" in text and ", p" not in text.partition("square is worse")[2][:80]
    assert "It stands at 20 seeds, the most that were allowed." in text
    assert "more seeds would settle" not in text + page_text(c)
    assert "seed=auto gave each loss its own number of seeds (cross_entropy 20, focal 12, poly1 20, square 6)" in text
    assert "no completed run for seed" not in text and "seeds were added in batches" not in text
    (picture,) = (one for one in pictures(c) if one.file == "differences-test-nll_scaled")
    assert "the bar its repeated 95% interval" in picture.caption
    assert "p values, bootstrap intervals and powers of a fixed number of seeds do not hold" in page_text(c)
    (line,) = (line for line in to_csv(c).splitlines() if line.startswith(f"{METRIC},best,square"))
    assert ",worse (decided at 6 seeds)" in line


def test_rows_stand_in_the_order_of_their_differences(sweep: Sweep) -> None:
    """Means over unequal seeds would put poly1, which ended before the seeds grew worse, first."""
    grow(sweep, {"poly1": (6, 0.02, 0.01), "focal": (20, -0.5, 0.6)})
    rows = comparison_of(sweep).rows
    means = {row.label: row.mean for row in rows}
    assert means["poly1"] < means["cross_entropy"]
    assert [row.label for row in rows] == ["focal", "cross_entropy", "poly1"]
    pairs = comparison_of(sweep, all_pairs=True).pairs or []
    assert [(pair.first, pair.second) for pair in pairs][-1] == ("cross_entropy", "poly1")


def test_seeds_beyond_the_verdict_count_for_nothing(sweep: Sweep) -> None:
    ledger = grow(sweep, {"square": (9, 1.0, 0.01), "focal": (12, 0.0, 0.005)})
    standing = ledger.standings()["square"]
    row = rows_of(sweep)["square"]
    assert standing.seeds < row.n == 9 and row.paired is not None
    assert row.paired.n == standing.seeds and tuple(row.differences.values()) == standing.differences


def test_another_metric_and_margin_keep_the_bounds(sweep: Sweep) -> None:
    ledger = grow(sweep, {"square": (6, 1.0, 0.01), "focal": (12, 0.0, 0.005)})
    bounds = ledger.terms.rule.bounds()
    for options in ({"metric": "test/nll"}, {"margin": 0.5}):
        row = rows_of(sweep, **options)["square"]
        assert row.paired is not None and row.paired.critical == bounds[5]
        assert row.verdict.word == "worse" and "decided" not in row.verdict.text
    assert comparison_of(sweep).margin == MARGIN


def test_the_sweeps_baseline_is_the_one(sweep: Sweep) -> None:
    grow(sweep, {"square": (8, 1.0, 0.01), "focal": (8, 0.0, 0.005)}, baseline="focal")
    assert comparison_of(sweep).baseline == "focal"
    rows = rows_of(sweep, baseline="square")
    assert rows["focal"].verdict.word == "better" and "decided" not in rows["focal"].verdict.text


def test_an_unfinished_sweep_says_how_far_it_is(sweep: Sweep) -> None:
    grow(sweep, {"square": (3, 1.0, 0.01), "focal": (7, 0.0, 0.3)})
    rows = rows_of(sweep)
    told = rows["square"].verdict.text
    assert told == "undecided (3 seeds of at most 20 so far, and the first look is at 6)"
    assert rows["square"].paired is not None and math.isnan(rows["square"].paired.low)
    assert rows["focal"].verdict.text == "undecided (7 seeds of at most 20 so far)"
    read(comparison_of(sweep))


def test_a_loss_equal_in_every_seed_is_what_the_sweep_says(sweep: Sweep) -> None:
    ledger = grow(sweep, {"focal": (6, 0.0, 0.0)})
    assert ledger.standings()["focal"].verdict == "equivalent"
    verdict = rows_of(sweep)["focal"].verdict
    assert verdict.word == "equivalent" and "no spread" in verdict.text and verdict.text.endswith("decided at 6 seeds)")


def test_a_loss_that_joined_later_widens_every_interval(sweep: Sweep) -> None:
    ledger = grow(sweep, {"focal": (12, 0.0, 0.005)})
    for seed in range(1, 13):
        sweep.add("brier", seed, 3.5 + seed / 90)
    rows = rows_of(sweep)
    for loss in ("focal", "brier"):
        paired = rows[loss].paired
        assert paired is not None and paired.critical > ledger.terms.rule.bounds()[paired.n - 1]


def test_runs_that_the_sweep_did_not_ask_for_are_left_out(sweep: Sweep) -> None:
    grow(sweep, {"square": (6, 1.0, 0.01), "focal": (12, 0.0, 0.005)})
    repeated, further = sweep.add("square", 1, 9.0), sweep.add("square", 13, 9.0)
    twin = sweep.add("square", 1, 4.01, changes={"seeds.twin": 1})
    sweep.add("cross_entropy", 13, 3.13)
    c = comparison_of(sweep)
    (told,) = (text for text in c.caveats if text.startswith("left out"))
    assert told.startswith("left out, because the sweep of seed=auto did not ask for them: ")
    assert repeated.name in told and further.name in told and twin.name not in told
    assert rows_of(sweep)["square"].verdict.text == "worse (decided at 6 seeds)"


def test_changed_code_asks_for_another_name_because_nothing_is_repeated(sweep: Sweep) -> None:
    grow(sweep, {"square": (6, 1.0, 0.01)})
    for path in sweep.folder.glob("*/run.json"):
        record = json.loads(path.read_text())
        record["hashes"]["code"] = ("a" if "-seed1-" in path.parent.name else "b") * 64
        path.write_text(json.dumps(record))
    (told,) = (text for text in comparison_of(sweep).caveats if "versions of losslab's code" in text)
    assert told.endswith("its command with another name=… trains all of it again") and "fresh" not in told
