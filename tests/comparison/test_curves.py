"""Mean curves, and where each loss stood when the quickest was done."""

import math

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, edit_record, page_text, read

from losslab.comparison.curves import mean_curve, speed_of


def speed(tokens_per_second: float) -> dict[str, float]:
    return {"tokens_per_second": tokens_per_second}


def test_the_mean_is_over_the_seeds_that_have_a_value_at_a_step() -> None:
    first = (np.array([10.0, 20.0]), np.array([4.0, 2.0]))
    second = (np.array([20.0, 30.0]), np.array([4.0, math.inf]))
    curve = mean_curve([first, second])
    assert curve.steps.tolist() == [10, 20, 30] and curve.n == 2
    assert curve.mean[:2].tolist() == [4.0, 3.0] and math.isnan(curve.mean[2])
    assert curve.std.tolist() == [0.0, pytest.approx(math.sqrt(2)), 0.0]


def add_speeds(sweep: Sweep, speeds: dict[str, tuple[float, ...]]) -> None:
    """Curves that fall by 1 from step 50 to 100, from a level of the seed."""
    for loss, own in speeds.items():
        for seed, value in enumerate(own, start=1):
            curve = {50: 5.0 + seed, 100: 4.0 + seed}
            sweep.add(loss, seed, 3.0 + seed, curve=curve, throughput=speed(value))


def test_at_equal_time_a_slow_loss_stands_where_it_was_by_then(sweep: Sweep) -> None:
    add_speeds(sweep, {"cross_entropy": (100.0, 100.0), "square": (80.0, 80.0)})
    c = comparison_of(sweep)
    share, values = c.equal_time["square"]
    assert share == pytest.approx(0.8)
    assert values.tolist() == pytest.approx([5.4, 6.4]), "at step 80, between 50 and 100"
    share, values = c.equal_time["cross_entropy"]
    assert share == 1.0 and values.tolist() == [5.0, 6.0]
    summary = read(c)
    assert "val at equal time" in summary and "5.9000" in summary
    assert "cross_entropy 100%, square 80%" in page_text(c)


def test_before_its_first_validation_nothing_is_known(sweep: Sweep) -> None:
    add_speeds(sweep, {"cross_entropy": (100.0, 100.0), "square": (40.0, 40.0)})
    c = comparison_of(sweep)
    assert np.isnan(c.equal_time["square"][1]).all(), "the value at step 50 was not there by step 40"
    read(c)


@pytest.mark.parametrize(
    "speeds",
    [
        {"cross_entropy": (100.0, 100.0), "square": (90.0, 90.0)},
        {"cross_entropy": (100.0, 60.0), "square": (65.0, 65.0)},
        {"cross_entropy": (100.0, 100.0), "square": (80.0, 0.0)},
        {"cross_entropy": (100.0, 100.0)},
    ],
    ids=["about as quick", "the machine was busy", "a speed is not known", "alone"],
)
def test_speeds_that_tell_nothing_give_no_column(speeds: dict[str, tuple[float, ...]], sweep: Sweep) -> None:
    add_speeds(sweep, speeds)
    c = comparison_of(sweep)
    assert c.equal_time == {}
    assert "equal time" not in read(c)


def test_speeds_of_two_machines_are_not_compared(sweep: Sweep) -> None:
    add_speeds(sweep, {"cross_entropy": (100.0,), "square": (50.0,)})
    edit_record(sweep.add("square", 2, 3.0, throughput=speed(50.0)), hardware={"device": "cuda"})
    assert comparison_of(sweep).equal_time == {}


def test_only_a_loss_whose_runs_all_know_it_has_a_speed(sweep: Sweep) -> None:
    add_speeds(sweep, {"cross_entropy": (100.0, 120.0, 500.0), "square": (80.0, 0.0)})
    found = {c.label: speed_of(c) for c in comparison_of(sweep).contenders}
    assert found == {"cross_entropy": 120.0, "square": None}
