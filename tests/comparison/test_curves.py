"""Mean curves, and where each loss stood when it had cost what the baseline's whole run costs."""

import json
import math

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, page_text, read

from losslab.comparison.costs import FILE, representatives
from losslab.comparison.curves import mean_curve


def test_the_mean_is_over_the_seeds_that_have_a_value_at_a_step() -> None:
    first = (np.array([10.0, 20.0]), np.array([4.0, 2.0]))
    second = (np.array([20.0, 30.0]), np.array([4.0, math.inf]))
    curve = mean_curve([first, second])
    assert curve.steps.tolist() == [10, 20, 30] and curve.n == 2
    assert curve.mean[:2].tolist() == [4.0, 3.0] and math.isnan(curve.mean[2])
    assert curve.std.tolist() == [0.0, pytest.approx(math.sqrt(2)), 0.0]


def add_flops(sweep: Sweep, flops: dict[str, float | None], *, quickest: str = "square") -> None:
    """Curves that fall by 1 from step 50 to 100, from a level of the seed; speeds of runs that shared their machine."""
    for loss, value in flops.items():
        for seed in (1, 2):
            curve = {50: 5.0 + seed, 100: 4.0 + seed}
            throughput = {"tokens_per_second": 900.0 if loss == quickest else 30.0 * seed}
            throughput |= {} if value is None else {"flops_per_token": value}
            sweep.add(loss, seed, 3.0 + seed, curve=curve, throughput=throughput)


def write_costs(sweep: Sweep, seconds: dict[str, list[float]]) -> None:
    """costs.json, as `losslab compare --costs` leaves it.

    Args:
        seconds: loss → of a step, one a round.
    """
    names = {path.name.partition("-seed")[0]: name for name, path in representatives(contenders(sweep)).items()}
    content = {
        "time": "2026-11-27T07:00:00+00:00",
        "rounds": len(next(iter(seconds.values()))),
        "hardware": {"device": "cpu", "device_name": "x86_64", "threads": 1},
        "seconds_per_step": {names[loss]: own for loss, own in seconds.items()},
    }
    (sweep.folder / FILE).write_text(json.dumps(content))


def contenders(sweep: Sweep):
    return comparison_of(sweep).contenders


def test_flops_say_what_a_loss_costs_where_nothing_was_measured(sweep: Sweep) -> None:
    add_flops(sweep, {"cross_entropy": 100.0, "square": 125.0})
    c = comparison_of(sweep)
    share, values = c.equal_time["square"]
    assert share == pytest.approx(0.8)
    assert values.tolist() == pytest.approx([5.4, 6.4]), "at step 80, between 50 and 100"
    share, values = c.equal_time["cross_entropy"]
    assert share == 1.0 and values.tolist() == [5.0, 6.0]
    summary = read(c)
    assert "val at equal FLOPs" in summary and "5.9000" in summary
    assert "costs: FLOPs of the model, the losses' own work not counted" in summary
    assert "cross_entropy 100%, square 80%" in page_text(c)


def test_how_long_runs_took_counts_nowhere(sweep: Sweep) -> None:
    """One of these losses ran alone on the machine, and the other beside nine others."""
    add_flops(sweep, {"cross_entropy": 100.0, "square": 100.0})
    c = comparison_of(sweep)
    assert c.equal_time == {} and c.costs is not None and c.costs.of == {"cross_entropy": 1.0, "square": 1.0}
    assert "at equal" not in read(c)


def test_costs_that_were_measured_side_by_side_come_before_flops(sweep: Sweep) -> None:
    add_flops(sweep, {"cross_entropy": 100.0, "square": 100.0})
    write_costs(sweep, {"cross_entropy": [1.0, 10.0, 1.0], "square": [1.25, 12.5, 1.3]})
    c = comparison_of(sweep)
    assert c.costs is not None and c.costs.of == {"cross_entropy": 1.0, "square": 1.25}, "the ratio of the quickest"
    assert c.equal_time["square"][0] == pytest.approx(0.8)
    summary = read(c)
    assert "val at equal time" in summary
    told = "costs: measured side by side by losslab compare --costs on 2026-11-27 (x86_64, 1 thread, 3 rounds)"
    assert told in summary and told in page_text(c)


def test_costs_measured_on_a_busy_machine_count_nowhere(sweep: Sweep) -> None:
    """The quickest round of one loss was the only one without other work: square seemed to cost 3 times as much."""
    add_flops(sweep, {"cross_entropy": 100.0, "square": 100.0})
    write_costs(sweep, {"cross_entropy": [0.27, 0.09, 0.26], "square": [0.28, 0.27, 0.29]})
    c = comparison_of(sweep)
    assert c.equal_time == {} and c.costs is not None and not c.costs.measured
    assert "costs.json is of a busy machine" in c.costs.told


def test_a_loss_that_costs_less_stands_at_its_own_end(sweep: Sweep) -> None:
    add_flops(sweep, {"cross_entropy": 100.0, "square": 50.0})
    share, values = comparison_of(sweep).equal_time["square"]
    assert share == 1.0 and values.tolist() == [5.0, 6.0]


def test_a_loss_that_was_not_measured_beside_the_others_leaves_flops(sweep: Sweep) -> None:
    add_flops(sweep, {"cross_entropy": 100.0, "square": 100.0})
    write_costs(sweep, {"cross_entropy": [1.0], "square": [2.0]})
    sweep.add("focal", 1, 3.0, throughput={"flops_per_token": 100.0})
    c = comparison_of(sweep)
    assert c.costs is not None and not c.costs.measured and c.equal_time == {}


def test_a_damaged_file_of_costs_is_none(sweep: Sweep) -> None:
    add_flops(sweep, {"cross_entropy": 100.0, "square": 100.0})
    for content in ("{", "[]", '{"rounds": 1, "seconds_per_step": {"a": [0]}, "time": "2026-01-01", "hardware": {}}'):
        (sweep.folder / FILE).write_text(content)
        c = comparison_of(sweep)
        assert c.costs is not None and not c.costs.measured


def test_before_its_first_validation_nothing_is_known(sweep: Sweep) -> None:
    add_flops(sweep, {"cross_entropy": 100.0, "square": 250.0})
    c = comparison_of(sweep)
    assert np.isnan(c.equal_time["square"][1]).all(), "the value at step 50 was not there by step 40"
    read(c)


def test_without_flops_in_every_record_there_are_no_costs(sweep: Sweep) -> None:
    add_flops(sweep, {"cross_entropy": 100.0, "square": None})
    assert comparison_of(sweep).costs is None
