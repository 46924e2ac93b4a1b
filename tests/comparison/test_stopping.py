"""Runs that a callback ended, went by, or averaged: how they are compared, and what a reader finds."""

from __future__ import annotations

from typing import Any

from made_runs import Sweep, comparison_of, edit_record

OBSERVER = {"callbacks": {"bars": {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor"}}}
STOPPING = {"callbacks": {"early": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "patience": 3}}}


def edited(sweep: Sweep, loss: str, seed: int, value: float, changes: dict[str, Any], **parts: Any) -> None:
    folder = sweep.add(loss, seed, value, changes=changes)
    if parts:
        edit_record(folder, **parts)


def test_pairs_of_unequal_length_are_compared_at_what_was_reached(sweep: Sweep) -> None:
    stopped = {"step": 40, "by": "early", "reason": "no improvement"}
    for seed in (1, 2, 3):
        edited(sweep, "cross_entropy", seed, 3.0 + seed, STOPPING)
        edited(sweep, "square", seed, 2.5 + seed, STOPPING, **({"step": 40, "stopped": stopped} if seed < 3 else {}))
    c = comparison_of(sweep)
    row = next(row for row in c.rows if row.label == "square")
    assert row.paired is not None
    assert (row.paired.n, row.paired.mean) == (3, -0.5)
    assert (
        "2 of 6 runs were ended by a callback before their budget: square seed 1 after step 40 of 100 (early), square "
        "seed 2 after step 40 of 100 (early); each is compared at what it reached, and pairs may be of unequal length"
    ) in c.caveats


def test_clocks_and_averages_are_said(sweep: Sweep) -> None:
    for seed in (1, 2):
        provenance = {"choices": {"loss": "square"}, "not_repeatable": ["timer"], "weights": "averaged"}
        edited(sweep, "cross_entropy", seed, 3.0 + seed, STOPPING)
        edited(sweep, "square", seed, 2.5 + seed, STOPPING, provenance=provenance)
    found = comparison_of(sweep).caveats
    assert (
        "2 of 4 runs went by a clock and cannot be repeated bit for bit: square seed 1, square seed 2" in found
    )  # fmt: skip
    assert (
        "the weights of square are averages that a callback put in their place; those of the others are not" in found
    )  # fmt: skip


def test_callbacks_that_observe_are_no_setting_and_others_are_one(sweep: Sweep) -> None:
    own = {"callbacks": {"mine": {"_target_": "my_package.Looks"}}}
    watching = {"choices": {"loss": "cross_entropy"}, "observers": ["mine"]}
    edited(sweep, "cross_entropy", 1, 3.0, {})
    edited(sweep, "cross_entropy", 2, 3.1, OBSERVER)
    edited(sweep, "cross_entropy", 3, 3.2, own, provenance=watching)
    edited(sweep, "square", 1, 2.9, {})
    edited(sweep, "square", 1, 2.8, STOPPING)
    found = {c.label: [sorted(group.runs) for group in c.groups] for c in comparison_of(sweep).contenders}
    assert found == {"cross_entropy": [[1, 2, 3]], "square": [[1]], "square callbacks=early patience=3": [[1]]}
