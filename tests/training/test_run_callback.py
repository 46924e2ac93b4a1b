"""Which validation is the best, what of the last one is kept, and what the time of validations is counted as."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from losslab.metric import Metric
from losslab.metrics.table import METRICS
from losslab.run_folder import RunFolder
from losslab.training.callbacks.run_callback import RunCallback
from losslab.training.callbacks.state import Intervals, RunState
from losslab.training.output import progress as progress_module
from losslab.training.output.progress import RunProgress

PRIMARY = "val/nll_scaled"
NLL_SCALED = next(metric for metric in METRICS if metric.name == "nll_scaled")
WHOLE, PART = 1.0, 2.0
"""Values of the same weights on all of val, and on the part of it that interim validations score."""


class Evaluator:
    """A model that gets better by 0.1 a validation, up to a step, and worse after it."""

    def __init__(self, qualities: list[float], *, parts: bool) -> None:
        self.qualities = qualities
        self.scores_parts = parts
        self.asked: list[bool] = []

    def validate(self, *, thorough: bool) -> dict[str, float]:
        self.asked.append(thorough)
        level = WHOLE if thorough or not self.scores_parts else PART
        values = {PRIMARY: level + self.qualities[0], "val/scale": level}
        return values | ({"val/mrr": 0.5} if thorough else {})


def keep(
    qualities: list[float], *, parts: bool, primary: Metric = NLL_SCALED
) -> tuple[RunCallback, list[dict[str, float]], list[bool]]:
    """The keeper after as many validations, their rows of the log, and which of them were the best so far."""
    evaluator: Any = Evaluator(list(qualities), parts=parts)
    absent: Any = None
    keeper = RunCallback(
        run=RunFolder(Path()),
        state=RunState(),
        intervals=Intervals(total=len(qualities), log=1, validate=1, checkpoint=1),
        evaluator=evaluator,
        primary=primary,
        progress=RunProgress(first=0, total=len(qualities), positions_per_step=10, metric=PRIMARY, enabled=False),
        contents={},
        keep=1,
        metrics_log=None,
        record=None,
        callbacks={},
        before_fit=absent,
        began=0.0,
    )
    rows, best = [], []
    for step in range(1, len(qualities) + 1):
        keeper.state.step = step
        rows.append({})
        best.append(keeper._validate(rows[-1]))
        evaluator.qualities.pop(0)
    return keeper, rows, best


def test_the_last_weights_compete_on_the_part_that_all_others_were_scored_on() -> None:
    """On all of val they look better by 1 than the earlier, better ones did on the part."""
    keeper, rows, best = keep([0.3, 0.1, 0.2], parts=True)
    assert best == [True, True, False]
    assert keeper.state.best == {PRIMARY: PART + 0.1, "val/scale": PART, "step": 2}
    assert keeper.state.latest == {PRIMARY: WHOLE + 0.2, "val/scale": WHOLE, "val/mrr": 0.5}
    assert [row[PRIMARY] for row in rows] == pytest.approx([PART + 0.3, PART + 0.1, PART + 0.2]), "one curve"
    assert rows[-1]["val/mrr"] == 0.5


def test_the_best_of_all_is_kept_as_it_was_scored_thoroughly() -> None:
    keeper, _, best = keep([0.3, 0.1], parts=True)
    assert best == [True, True]
    assert keeper.state.best == {PRIMARY: WHOLE + 0.1, "val/scale": WHOLE, "val/mrr": 0.5, "step": 2}


def test_where_higher_is_better_the_largest_is_the_best() -> None:
    keeper, _, best = keep([0.1, 0.3, 0.2], parts=False, primary=NLL_SCALED._replace(higher_is_better=True))
    assert best == [True, True, False]
    assert keeper.state.best[PRIMARY] == WHOLE + 0.3


def test_where_every_validation_scores_all_of_val_the_last_is_made_once() -> None:
    keeper, rows, best = keep([0.3, 0.1, 0.2], parts=False)
    assert best == [True, True, False]
    assert keeper.evaluator.asked == [False, False, True]  # type: ignore[attr-defined]
    assert rows[-1] == keeper.state.latest


def test_tokens_a_second_are_those_of_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    shown = RunProgress(first=0, total=10, positions_per_step=50, metric=PRIMARY, enabled=False)
    now[0] += 30  # until training starts
    shown.begin()
    now[0] += 4
    with shown.paused():
        now[0] += 100
        assert shown.speed(2) == 25
    assert shown.speed(2) == 25
    now[0] += 4
    assert shown.speed(4) == 25


def test_seconds_of_validations_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    validate = Evaluator.validate

    def slow(self: Evaluator, *, thorough: bool) -> dict[str, float]:
        now[0] += 3
        return validate(self, thorough=thorough)

    now = [time.monotonic()]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Evaluator, "validate", slow)
    keeper, _, _ = keep([0.3, 0.1], parts=True)
    assert keeper.state.validation_seconds == pytest.approx(9)
