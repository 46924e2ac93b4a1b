"""Seeds that were added by hand: which batches are found, and what a look in between does to a p."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, edit_record
from scipy import stats

from losslab.comparison.grown import inflated
from losslab.comparison.simultaneous import sidak

FIRST, SECOND, THIRD = (f"losslab train -m seed={','.join(map(str, range(1, n + 1)))}" for n in (3, 6, 12))


def add(sweep: Sweep, loss: str, seeds: Sequence[int], *, day: int, command: str, minute: int = 0) -> None:
    """Runs of ten seconds each, one after the other, from this time on."""
    for place, seed in enumerate(seeds):
        folder = sweep.add(loss, seed, 3.0 + math.sin(seed * (1 + len(loss))))
        began = minute * 60 + 12 * place
        times = [
            f"2026-01-{day:02}T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}+00:00" for at in (began, began + 10)
        ]
        provenance = {"choices": {"loss": loss}, "command": command}
        edit_record(folder, timing={"started": times[0], "updated": times[1]}, provenance=provenance)


def grown(sweep: Sweep) -> list[str]:
    return [text for text in comparison_of(sweep).caveats if text.startswith("seeds were added")]


def test_three_batches_are_told_with_what_they_do_to_a_p(sweep: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        add(sweep, loss, range(1, 4), day=1, command=FIRST)
        add(sweep, loss, range(4, 7), day=2, command=SECOND)
        add(sweep, loss, range(7, 13), day=3, command=THIRD)
    (told,) = grown(sweep)
    assert told == (
        "seeds were added in batches (3 + 3 + 6) by later commands: if you looked in between, and would have stopped "
        "at a result, a p (adjusted) of 0.05 stands for up to 0.12, and intervals miss as often; seed=auto, "
        "under another name=… and from seeds that are new (first_seed=…), has no such error (docs/stopping.md)"
    )


def test_a_loss_of_its_own_batches_is_named(sweep: Sweep) -> None:
    add(sweep, "cross_entropy", range(1, 13), day=1, command=THIRD)
    add(sweep, "square", range(1, 13), day=2, command="losslab train -m loss=square")
    add(sweep, "focal", range(1, 4), day=1, command=FIRST, minute=60)
    add(sweep, "focal", range(4, 13), day=4, command=THIRD)
    (told,) = grown(sweep)
    assert "(focal: 3 + 9)" in told, "a baseline with all its seeds, and a loss that came later, are one batch each"


@pytest.mark.parametrize("why", ["one command, killed and repeated", "a loop over seeds", "records without times"])
def test_what_did_not_grow_is_not_told(sweep: Sweep, why: str) -> None:
    for loss in ("cross_entropy", "square"):
        if why == "one command, killed and repeated":
            add(sweep, loss, range(1, 4), day=1, command=THIRD)
            add(sweep, loss, range(4, 13), day=2, command=THIRD)
        elif why == "a loop over seeds":
            for seed in range(1, 7):
                add(sweep, loss, [seed], day=1, command=f"losslab train seed={seed}", minute=seed)
        else:
            add(sweep, loss, range(1, 4), day=1, command=FIRST)
            sweep.add(loss, 4, 3.0)
    assert grown(sweep) == []


def test_the_inflated_error_is_that_of_drawn_tables() -> None:
    """Two independent comparisons at three looks each, and a third that was looked at once."""
    tables, looks = 40_000, (3, 6, 12)
    random = np.random.default_rng(0)
    level = sidak(3).level
    shown = np.zeros(tables, dtype=bool)
    for own in (looks, looks, (12,)):
        values = random.standard_normal((tables, 12))
        for n in own:
            t = stats.ttest_1samp(values[:, :n], 0.0, axis=1).statistic
            shown |= np.abs(t) >= stats.t.isf(level / 2, n - 1)
    error = inflated([looks, looks, (12,)])
    assert error == pytest.approx(shown.mean(), abs=4 * math.sqrt(error / tables))
    assert inflated([(12,), (12,), (12,)]) == pytest.approx(0.05)
    assert inflated([(1, 6)]) == pytest.approx(0.05), "one pair has no p"
