"""Each loss at its best setting: validation decides, out of equally many, and what is unequal is told."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import Sweep, comparison_of, read, rows_of

from losslab.comparison.metrics import CUSTOMARY
from losslab.comparison.runs.contenders import Contender, Group
from losslab.comparison.runs.run import Run
from losslab.comparison.tuning import axes_of, choose, expected_best, expected_maximum, validation_of
from losslab.errors import UserError
from losslab.records import Record

EDGE = "was tried"


def contender(results: dict[Any, list[tuple[float | None, float]]], *, key: str = "optimizer.lr") -> Contender:
    """Value of a setting → (val, test) of each seed; val None: the run diverged."""
    groups = []
    for value, seeds in results.items():
        group = Group(((key, value),))
        for seed, (val, test) in enumerate(seeds):
            best = {} if val is None else {"val/nll": val, "test/nll": test, "val/top1": val}
            status = "diverged" if val is None else "completed"
            run = Run(None, Record("", "", status=status, metrics={"best": best}), "square", seed, {}, True)
            if val is None:
                group.others.append(run)
            else:
                group.runs[seed] = run
        groups.append(group)
    return Contender("square", "square", True, (), groups, groups[0])


VALUES = st.floats(0.0, 10.0)
GRIDS = st.dictionaries(
    st.integers(1, 100), st.lists(st.tuples(VALUES, VALUES), min_size=3, max_size=3), min_size=1, max_size=6
)


@given(GRIDS, st.booleans())
@settings(deadline=None)
def test_validation_decides_and_not_test(grid: dict[int, list[tuple[float, float]]], shuffled: bool) -> None:
    found = contender(grid)
    choose([found], "val/nll", CUSTOMARY)
    means = {value: np.mean([val for val, _ in seeds]) for value, seeds in grid.items()}
    ((_, chosen),) = found.chosen.setting
    assert means[chosen] == min(means.values())
    # Whatever test says: the same settings are chosen.
    other = contender({value: [(val, 10 - test) for val, test in seeds] for value, seeds in grid.items()})
    choose([other], "val/nll", CUSTOMARY)
    assert other.chosen.setting == found.chosen.setting
    choose([found], "val/top1", CUSTOMARY)
    assert means[found.chosen.setting[0][1]] == max(means.values()), "more top-1 is better"


@given(GRIDS, st.data())
@settings(deadline=None)
def test_a_setting_that_lost_a_seed_is_not_chosen_over_one_that_did_not(
    grid: dict[int, list[tuple[float | None, float]]], data: st.DataObject
) -> None:
    values = sorted(grid)
    broken = data.draw(st.sets(st.sampled_from(values), max_size=len(values) - 1))
    for value in broken:
        grid[value] = [(None, 0.0), *((-100.0, 0.0) for _ in range(2))]  # far better where it got through
    found = contender(grid)
    choose([found], "val/nll", CUSTOMARY)
    assert found.chosen.setting[0][1] not in broken


def test_the_table_has_one_row_a_loss_at_its_best_setting(grid: Sweep) -> None:
    c = comparison_of(grid)
    assert {row.label: row.setting for row in c.rows} == {"cross_entropy": "lr=0.003", "square": "lr=0.01"}
    assert {row.label: row.n for row in c.rows} == {"cross_entropy": 2, "square": 2}
    summary = read(c)
    assert "each loss at its best setting by val/nll_scaled" in summary
    assert "Each loss took its best lr of 0.001, 0.003, 0.01, 0.03 by the mean of val/nll_scaled over seeds." in summary
    assert "the settings were chosen (on validation) with the very seeds that the table reports" in summary
    assert "not tuned over the same" not in summary and EDGE not in summary


def test_test_does_not_choose_in_the_table_either(sweep: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        for lr, val, test in ((0.001, 3.0, 9.0), (0.01, 3.1, 1.0)):
            sweep.add(loss, 1, test, val=val, changes={"optimizer.lr": lr})
    assert {row.mean for row in comparison_of(sweep).rows} == {9.0}


def test_a_diverged_setting_is_never_chosen_and_counts_as_the_worst(grid: Sweep) -> None:
    for seed in (1, 2):
        grid.add("focal", seed, 3.3, val=3.2, changes={"optimizer.lr": 0.003})
    grid.add("focal", 1, 1.0, val=0.9, changes={"optimizer.lr": 0.01})
    grid.add("focal", 2, status="diverged", changes={"optimizer.lr": 0.01}, error="the objective is not finite")
    c = comparison_of(grid)
    summary = read(c)
    row = next(row for row in c.rows if row.label == "focal")
    assert (row.setting, row.n, row.mean, row.lost) == ("lr=0.003", 2, 3.3, "")
    assert (
        "focal: 1 diverged at lr=0.01, seed 2 (the objective is not finite): a result, but not in these means"
        in summary
    )
    worst = 3.52  # of all runs' val
    expected = next(item for item in c.expected if item.label == "focal")
    assert expected.mean[0] == pytest.approx(np.mean([(3.2 + 0.9) / 2, (3.2 + worst) / 2]))
    assert expected.mean[1] == pytest.approx(np.mean([0.9, 3.2]))
    assert "not tuned over the same settings and seeds" in summary


def test_unequal_numbers_of_settings_are_told(grid: Sweep) -> None:
    grid.add("square", 1, 3.0, val=2.9, changes={"optimizer.lr": 0.1})
    told = (
        "the losses were not tuned over the same settings and seeds: cross_entropy 4 settings and 8 runs, square 5 "
        "settings and 9 runs; more trials find more"
    )
    assert told in read(comparison_of(grid))


def test_unequal_numbers_of_seeds_are_told(grid: Sweep) -> None:
    grid.add("square", 3, 3.0, val=3.0, changes={"optimizer.lr": 0.01})
    told = "cross_entropy 4 settings and 8 runs, square 4 settings and 9 runs; more trials find more"
    assert told in read(comparison_of(grid))


def test_losses_at_one_setting_each_but_not_the_same_are_told(sweep: Sweep) -> None:
    sweep.add_grid("cross_entropy", {0.003: 3.0})
    sweep.add_grid("square", {0.01: 3.1})
    c = comparison_of(sweep)
    told = (
        "cross_entropy lr=0.003 (2 runs); square lr=0.01 (2 runs); a difference may be one of settings, not of losses"
    )
    assert told in read(c)
    assert {row.setting for row in c.rows} == {"lr=0.003", "lr=0.01"}, "the table says which"


def test_repetitions_are_trials_too(grid: Sweep) -> None:
    grid.add("square", 1, 3.0, val=3.0, changes={"optimizer.lr": 0.01}, started="2026-01-02")
    assert "square 4 settings and 9 runs" in read(comparison_of(grid))


@pytest.mark.parametrize(
    ("rates", "side"),
    [
        ({0.001: 3.0, 0.003: 3.1, 0.01: 3.2}, "smallest that was tried (0.001)"),
        ({0.001: 3.2, 0.003: 3.1, 0.01: 3.0}, "largest that was tried (0.01)"),
        ({0.001: 3.1, 0.003: 3.0}, "largest that was tried (0.003)"),
        ({0.001: 3.1, 0.003: 3.0, 0.01: 3.1}, None),
        ({0.003: 3.0}, None),
    ],
    ids=["smallest", "largest", "two values", "inside", "a single value"],
)
def test_the_best_at_the_edge_of_the_grid_is_told(rates: dict[float, float], side: str | None, sweep: Sweep) -> None:
    sweep.add_grid("cross_entropy", {0.001: 3.3, 0.003: 3.0, 0.01: 3.3})
    sweep.add_grid("square", rates)
    summary = read(comparison_of(sweep))
    told = f"square: the best lr is the {side}; try beyond it before you believe its row"
    assert (told in summary) == (side is not None)
    assert summary.count(EDGE) == (side is not None)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("scheduler._target_", ("a.Constant", "b.Cosine")),
        ("optimizer.amsgrad", (False, True)),
        ("optimizer.betas", None),
    ],
)
def test_categories_have_no_edge(key: str, values: tuple[Any, ...] | None, sweep: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        for i, value in enumerate(values or ([0.9, 0.95], [0.9, 0.99])):
            sweep.add(loss, 1, 3.0 + i, val=3.0 + i, changes={key: value})
    assert EDGE not in read(comparison_of(sweep))


def test_the_edge_is_that_of_numbers_where_the_grid_has_holes() -> None:
    """The values of the second axis do not come in their order."""
    groups = []
    for (lr, decay), val in {(0.001, 2.0): 3.0, (0.001, 10.0): 3.3, (0.01, 1.0): 3.2}.items():
        run = Run(None, Record("", "", status="completed", metrics={"best": {"val/nll": val}}), "square", 1, {}, True)
        groups.append(Group((("optimizer.lr", lr), ("optimizer.decay", decay)), {1: run}))
    found = Contender("square", "square", True, (), groups, groups[0])
    choose([found], "val/nll", CUSTOMARY)
    rate, decay = axes_of(found, "val/nll", CUSTOMARY)
    assert [tried.value for tried in decay.tried] == [1.0, 2.0, 10.0]
    assert (rate.on_edge, decay.on_edge) == (True, False)


def test_a_loss_without_any_result_has_no_edge_and_no_setting(grid: Sweep) -> None:
    for lr in (0.001, 0.003, 0.01, 0.03):
        for seed in (1, 2):
            grid.add("focal", seed, status="diverged", changes={"optimizer.lr": lr}, error="loss is not finite")
    c = comparison_of(grid)
    summary = read(c)
    row = c.rows[-1]
    assert (row.label, row.setting, row.n, row.lost, row.verdict.text) == ("focal", "", 0, "8 diverged", "no result")
    assert "focal: the best lr" not in summary
    assert "focal: 8 diverged at lr=0.001, lr=0.003, lr=0.01, lr=0.03, seed 1, 2 (loss is not finite)" in summary


def test_tuning_without_a_validation_metric_is_refused(sweep: Sweep) -> None:
    for lr in (0.001, 0.01):
        sweep.add("cross_entropy", 1, 3.0, changes={"optimizer.lr": lr})
    for tune in ("all", "optimizer.lr"):
        with pytest.raises(UserError, match=rf"--tune {tune}: settings are chosen on validation.*no val/nll_scaled"):
            comparison_of(sweep, tune=tune)
    assert len(comparison_of(sweep, tune="none").rows) == 2


def test_a_loss_that_lacks_the_metric_is_tuned_by_the_primary_one(grid: Sweep) -> None:
    for path in grid.folder.glob("cross_entropy*"):
        record = json.loads((path / "run.json").read_text())
        best = record["metrics"]["best"]
        best |= {"val/nll_linked": best["val/nll_scaled"], "test/nll_linked": best["test/nll_scaled"]}
        (path / "run.json").write_text(json.dumps(record))
    c = comparison_of(grid, metric="test/nll_linked")
    summary = read(c)
    assert {row.label: row.setting for row in c.rows} == {"cross_entropy": "lr=0.003", "square": "lr=0.01"}
    assert "square: no val/nll_linked at any setting; its setting is the best by val/nll_scaled" in summary
    assert "square: no test/nll_linked (missing or not finite) for seed 1, 2" in summary
    assert [item.label for item in c.expected] == ["cross_entropy"]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=7))
@settings(deadline=None)
def test_the_expected_maximum_is_the_mean_over_all_subsets(values: list[float]) -> None:
    for n, found in enumerate(expected_maximum(np.array(values)), start=1):
        every = [max(subset) for subset in itertools.combinations(values, n)]
        assert found == pytest.approx(np.mean(every), abs=1e-9)


def test_the_expected_best_is_the_smallest_of_an_nll_and_the_largest_of_top1() -> None:
    found = contender({0.1: [(1.0, 0.0), (2.0, 0.0)], 0.2: [(3.0, 0.0), (None, 0.0)], 0.3: [(2.0, 0.0), (6.0, 0.0)]})
    smallest = expected_best(found, "val/nll", worst=6.0, higher_is_better=False)
    assert smallest is not None
    assert smallest.trials.tolist() == [1, 2, 3]
    pairs = [min(1, 3), min(1, 2), min(3, 2)], [min(2, 6), min(2, 6), min(6, 6)]
    assert smallest.mean == pytest.approx([(2 + 14 / 3) / 2, (sum(pairs[0]) + sum(pairs[1])) / 6, (1 + 2) / 2])
    assert smallest.std[-1] == pytest.approx(math.sqrt(0.5))
    assert (np.diff(smallest.mean) <= 0).all(), "more trials find more"
    largest = expected_best(found, "val/top1", worst=1.0, higher_is_better=True)
    assert largest is not None and largest.mean[-1] == pytest.approx((3 + 6) / 2)
    alone = contender({0.1: [(1.0, 0.0)]})
    assert expected_best(alone, "val/nll", worst=1.0, higher_is_better=False) is None


def test_the_cost_of_trials_is_in_one_unit_for_all(grid: Sweep) -> None:
    assert {item.cost.tolist() == [1.0, 2.0, 3.0, 4.0] for item in comparison_of(grid).expected} == {True}
    flops = {"flops_per_token": 1000.0}
    for lr in (0.1, 0.2):
        grid.add("focal", 1, 3.0, val=3.0, changes={"optimizer.lr": lr}, throughput=flops)
    c = comparison_of(grid)
    assert {item.label: item.cost[0] for item in c.expected} == {"cross_entropy": 1.0, "focal": 1.0, "square": 1.0}
    only = comparison_of(grid, where=("loss=focal",), baseline="focal")
    assert [item.cost.tolist() for item in only.expected] == [[1000.0 * 100 * 16 * 32 * n for n in (1, 2)]]
    grid.add("focal", 2, status="planned", changes={"optimizer.lr": 0.1})
    only = comparison_of(grid, where=("loss=focal",), baseline="focal")
    assert only.expected[0].cost[0] == 1000.0 * 100 * 16 * 32, "what a planned run does not know, the others do"


def test_a_metric_is_chosen_for_by_its_own_validation(grid: Sweep) -> None:
    runs = comparison_of(grid).runs
    assert validation_of("test/nll_scaled", runs) == "val/nll_scaled"
    assert validation_of("test/nll", runs) is None


def test_one_learning_rate_for_all_is_told_and_a_grid_is_not(grid: Sweep) -> None:
    told = "one learning rate for all losses: this ranks settings, not losses"
    assert told in read(comparison_of(grid, where=("optimizer.lr=0.003",)))
    assert told not in read(comparison_of(grid))


def test_values_that_are_nothing_are_spelled_as_they_are_typed(sweep: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        for clip, val in ((None, 3.0), (1.0, 3.1)):
            sweep.add(loss, 1, val, val=val, changes={"trainer.gradient_clip_val": clip})
    assert {row.setting for row in rows_of(sweep).values()} == {"gradient_clip_val=null"}
    assert "its best gradient_clip_val of 1, null by" in read(comparison_of(sweep))


def test_settings_are_chosen_on_the_seeds_that_they_share(sweep: Sweep) -> None:
    """Somebody added seeds at one rate only; the better one must not lose for having fewer."""
    for seed in range(1, 7):
        sweep.add("cross_entropy", seed, 3.0 + seed, val=3.0 + seed, changes={"optimizer.lr": 0.003})
    for seed in (1, 2, 3):
        sweep.add("cross_entropy", seed, 2.8 + seed, val=2.8 + seed, changes={"optimizer.lr": 0.01})
    c = comparison_of(sweep)
    assert c.rows[0].setting == "lr=0.01" and c.rows[0].n == 3
    told = "cross_entropy: unequal numbers of runs at its settings (lr=0.003: 6, lr=0.01: 3); it was tuned on the seeds"
    assert told in read(c)
    (expected,) = c.expected
    assert expected.seeds == 3 and expected.mean[-1] == pytest.approx(2.8 + 2)


def test_no_value_below_nothing_is_an_edge(sweep: Sweep) -> None:
    sweep.add_grid("cross_entropy", {0.0: 3.0, 0.1: 3.1}, key="model.dropout")
    assert not any("try beyond it" in text for text in comparison_of(sweep).caveats)
