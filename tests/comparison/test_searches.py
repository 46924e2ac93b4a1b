"""Searches in a comparison: what each loss took, out of which budget, and how that was spent."""

from __future__ import annotations

from typing import Any

from made_runs import Sweep, comparison_of, edit_record, read

SEARCHED = ["optimizer.lr", "loss.gamma"]


def add_trial(
    sweep: Sweep, loss: str, number: int, rate: float, val: float | None, *, seed: int = 1, **more: Any
) -> None:
    changes = {"optimizer.lr": rate} | ({"loss.gamma": more.pop("gamma")} if "gamma" in more else {})
    status = more.pop("status", "completed")
    value = None if status != "completed" or val is None else val + 0.1
    folder = sweep.add(loss, seed, value, val=val, status=status, changes=changes, **more)
    searched = SEARCHED if loss == "focal" else SEARCHED[:1]
    edit_record(folder, trial={"study": f"{loss}-abc123", "number": number, "searched": searched})


def search(sweep: Sweep) -> None:
    """Three trials each; the second of focal was pruned, where its last validation looked best of all."""
    for number, (rate, val) in enumerate([(0.001, 3.2), (0.004, 3.0), (0.02, 3.4)]):
        add_trial(sweep, "cross_entropy", number, rate, val)
    add_trial(sweep, "focal", 0, 0.002, 3.1, gamma=1)
    add_trial(sweep, "focal", 1, 0.03, 2.0, gamma=2, status="pruned", error="val/nll_scaled 2.0 is worse")


def test_equal_budgets_are_told_with_how_they_were_spent(sweep: Sweep) -> None:
    search(sweep)
    add_trial(sweep, "focal", 2, 0.005, 3.3, gamma=2)
    summary = read(comparison_of(sweep))
    told = "cross_entropy 3 trials (3 completed); focal 3 trials (2 completed, 1 pruned)"
    assert f"of searches with equal budgets: {told}" in summary
    assert "train the chosen settings with seed=auto, under another name=… (docs/stopping.md)" in summary
    assert "not tuned over the same settings" not in summary and "unequal" not in summary
    assert "focal: 1 pruned at gamma=2 lr=0.03, seed 1: not in these means" in summary


def test_each_loss_takes_its_best_trial_over_all_that_was_searched(sweep: Sweep) -> None:
    search(sweep)
    add_trial(sweep, "focal", 2, 0.005, 3.3, gamma=2)
    rows = {row.label: row for row in comparison_of(sweep).rows}
    assert {label: row.setting for label, row in rows.items()} == {
        "cross_entropy": "lr=0.004",
        "focal": "gamma=1 lr=0.002",
    }


def test_unequal_budgets_are_a_caveat(sweep: Sweep) -> None:
    search(sweep)
    c = comparison_of(sweep)
    told = "cross_entropy 3 trials (3 completed); focal 2 trials (1 completed, 1 pruned)"
    assert f"the losses were searched with unequal budgets: {told}; more trials find more" in c.caveats
    assert f"of searches with unequal budgets: {told}" in read(c)


def test_a_trial_of_several_seeds_counts_once(sweep: Sweep) -> None:
    for loss in ("cross_entropy", "focal"):
        for number, rate in enumerate((0.001, 0.01)):
            for seed in (1, 2):
                add_trial(sweep, loss, number, rate, 3.0 + rate, seed=seed)
    add_trial(sweep, "cross_entropy", 2, 0.3, 9.0, status="pruned")  # whose second seed never began
    add_trial(sweep, "focal", 2, 0.3, 9.0)
    add_trial(sweep, "focal", 2, 0.3, None, seed=2, status="failed")
    c = comparison_of(sweep)
    told = "cross_entropy 3 trials (2 completed, 1 pruned); focal 3 trials (2 completed, 1 failed)"
    assert f"of searches with equal budgets: {told}" in read(c)
    assert not any("cross_entropy: unequal numbers of runs" in text for text in c.caveats)


def test_a_grid_beside_a_search_is_judged_by_its_settings(sweep: Sweep) -> None:
    search(sweep)
    sweep.add_grid("square", {0.001: 3.2, 0.004: 3.1}, seeds=(1,))
    summary = read(comparison_of(sweep))
    assert "not tuned over the same settings and seeds" in summary and "of searches" not in summary


def test_many_tried_values_are_counted_in_a_sentence(sweep: Sweep) -> None:
    for number in range(12):
        add_trial(sweep, "cross_entropy", number, 0.001 * (number + 1), 3.0 + number / 100)
        add_trial(sweep, "focal", number, 0.001 * (number + 1), 3.0 + number / 100, gamma=1)
    assert "best lr of 12 values from 0.001 to 0.012 by" in read(comparison_of(sweep))
