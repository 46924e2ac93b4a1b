"""Runs pair on all their seeds; streams that pairs share are told, and twins are chaos and no further seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from made_runs import Sweep, comparison_of, page_text, read, rows_of
from scipy import stats

from losslab.commands.answer import answer_parts
from losslab.comparison import load, load_runs
from losslab.comparison.runs.seed import Seed, listed
from losslab.comparison.twins import rms_of

LEVELS = [3.0, 3.4, 2.9, 3.2, 3.6, 3.1]


def add_pair(sweep: Sweep, seed: int, level: float, difference: float, **own: int | None) -> None:
    changes = {f"seeds.{name}": value for name, value in own.items()}
    streams = {"backbone_init": f"w{own.get('backbone_init') or seed}", "batches": f"b{own.get('data_order') or seed}"}
    for loss, value in (("cross_entropy", level), ("square", level + difference)):
        sweep.add(loss, seed, value, changes=changes, hashes=streams)


def add_twins(sweep: Sweep, loss: str, values: dict[int, Sequence[float]]) -> None:
    for seed, own in values.items():
        for number, value in enumerate(own, start=1):
            start = {"backbone_init": f"w{seed} twin {number}"}
            sweep.add(loss, seed, value, changes={"seeds.twin": number}, hashes=start)


def test_a_seed_is_a_number_and_equals_one_with_the_same_streams() -> None:
    whole, apart, same = Seed(1), Seed(1, {"data_order": 7, "dropout": None}), Seed(1, {"data_order": 7})
    assert (whole, {whole: 0}[1], str(whole)) == (1, 0, "1")
    assert apart == same != whole
    assert apart != 1
    assert len({whole, apart, same, 1}) == 2
    assert sorted([Seed(2), apart, whole]) == [whole, apart, Seed(2)]
    assert (str(apart), apart.of("data_order"), apart.of("dropout")) == ("1 (data_order=7)", 7, 1)
    assert listed([Seed(1), Seed(2), Seed(3)]) == "1–3"
    assert listed([whole, apart, Seed(3)]) == "1, 1 (data_order=7), 3"


def test_runs_pair_on_all_their_seeds_and_no_stream_is_a_setting(sweep: Sweep) -> None:
    for order, level in enumerate(LEVELS, start=1):
        add_pair(sweep, 1, level, 0.05 + order / 1000, data_order=order if order > 1 else None)
    row = rows_of(sweep)["square"]
    assert list(map(str, row.differences)) == ["1", *(f"1 (data_order={n})" for n in range(2, 7))]
    assert list(row.differences.values()) == pytest.approx([0.05 + n / 1000 for n in range(1, 7)])
    assert (row.setting, row.n, row.verdict.word) == ("", 6, "worse")
    c = comparison_of(sweep)
    assert (
        "square: its 6 pairs differ in data_order, and share the rest (one seed of backbone_init, head_init, dropout, "
        "loss and callbacks for all): n counts pairs, and the interval is over data_order only; whole seeds "
        "(seed=1,2,…) would vary more" in c.caveats
    )
    assert not any("equal initial weights" in text for text in c.caveats)
    assert "6 seeds (1, 1 (data_order=2)," in read(c)


def test_pairs_that_share_seeds_of_every_stream_are_not_independent(sweep: Sweep) -> None:
    for seed in (1, 2):
        for order in (1, 2, 3):
            add_pair(sweep, seed, LEVELS[order], 0.05 + seed / 100, data_order=None if order == seed else order)
    (told,) = (text for text in comparison_of(sweep).caveats if "independent" in text)
    assert told.startswith(
        "square: its 6 pairs share seeds of every stream (2 seeds of backbone_init, head_init, dropout, loss and "
        "callbacks; 3 seeds of data_order): they are not independent"
    )


def test_whole_seeds_have_no_caveat_of_streams(paired_sweep: Sweep) -> None:
    assert not any("n counts pairs" in text or "independent" in text for text in comparison_of(paired_sweep).caveats)


def test_streams_of_their_own_with_equal_weights_are_a_fault(sweep: Sweep) -> None:
    """Another seed of the initial weights gave the same ones."""
    for init, level in enumerate(LEVELS, start=1):
        for loss in ("cross_entropy", "square"):
            sweep.add(loss, 1, level, changes={"seeds.backbone_init": init}, hashes={"backbone_init": "w"})
    assert any("equal initial weights" in text for text in comparison_of(sweep).caveats)


@pytest.mark.parametrize(
    ("where", "runs"),
    [("seeds.data_order=2", 4), ("seed=1", 7), ("seeds.dropout=1", 7), ("seeds.twin=null", 8), ("seeds.twin=1", 1)],
)
def test_a_filter_may_name_streams_and_twins(sweep: Sweep, where: str, runs: int) -> None:
    for order in (1, 2, 3):
        add_pair(sweep, 1, LEVELS[order], 0.05, data_order=order)
    add_pair(sweep, 2, 3.0, 0.05, dropout=3)
    add_twins(sweep, "cross_entropy", {1: [3.41]})
    assert len(load_runs(sweep.folder, where=[where]).runs) == runs


def test_twins_are_no_further_seeds_and_their_distance_is_told(paired_sweep: Sweep) -> None:
    before = rows_of(paired_sweep)
    values = {seed: [level + 0.001, level - 0.002] for seed, level in enumerate(LEVELS[:3], start=1)}
    add_twins(paired_sweep, "cross_entropy", values)
    c = comparison_of(paired_sweep)
    assert repr(rows_of(paired_sweep)) == repr(
        before
    )  # they hold NaN, and from Python 3.13 on are unequal to themselves
    (chaos,) = c.chaos
    distances = [one - other for own in ([0, 0.001, -0.002],) for i, one in enumerate(own) for other in own[i + 1 :]]
    rms = math.sqrt(np.mean(np.square(distances)))
    assert (chaos.label, chaos.twins, chaos.seeds) == ("cross_entropy", 6, 3)
    assert chaos.rms == pytest.approx(rms)
    assert [chaos.low, chaos.high] == pytest.approx([rms * math.sqrt(6 / stats.chi2.ppf(p, 6)) for p in (0.975, 0.025)])
    std = before["square"].paired.std  # type: ignore[union-attr]
    told = (
        "chaos: twins of cross_entropy end 0.0022 apart in test/nll_scaled (rms; 95% 0.0014–0.0048, 6 twins of 3 "
        f"seeds); paired differences have a standard deviation of: square {std:.4f} (chaos makes all of it). Chaos "
        "alone gives their mean a standard error of 0.0009 (6 pairs): a mean below twice that may be no effect of the "
        "loss."
    )
    assert told in [*answer_parts(c, terminal=True)]
    assert told in " ".join(page_text(c).split())
    assert "1 twin 2" in page_text(c)


def test_the_share_of_chaos_in_a_variance(paired_sweep: Sweep) -> None:
    add_twins(paired_sweep, "square", {1: [3.05 + 0.002 + 0.0005]})
    c = comparison_of(paired_sweep)
    assert c.chaos[0].rms == pytest.approx(0.0005)
    assert "twins of square end 0.0005 apart" in read(c)
    std = next(row.paired.std for row in c.rows if row.paired)
    assert f"chaos makes {0.0005**2 / std**2:.0%} of its variance" in read(c)


def test_the_distance_of_twins_is_that_of_normal_draws() -> None:
    """Two draws of one deviation are √2 of it apart, however many twins a seed has."""
    draws = np.random.default_rng(1).normal(scale=0.02, size=(2000, 3))
    assert rms_of([list(row) for row in draws])[0] == pytest.approx(0.02 * math.sqrt(2), rel=0.02)


def test_twins_that_stand_alone_or_began_otherwise_say_nothing(paired_sweep: Sweep) -> None:
    add_twins(paired_sweep, "cross_entropy", {9: [3.0]})
    paired_sweep.add("cross_entropy", 1, 3.1, changes={"seeds.twin": 1}, hashes={"batches": "others"})
    paired_sweep.add("cross_entropy", 2, None, changes={"seeds.twin": 1}, status="failed")
    c = comparison_of(paired_sweep)
    assert c.chaos == []
    assert "chaos" not in " ".join(text for text in read(c).split("\n") if "twins of seed 9" not in text)
    assert any(text.startswith("cross_entropy: twins of seed 9 stand alone") for text in c.caveats)
    assert any("with other batches or code" in text and "(seed 1)" in text for text in c.caveats)


def test_columns_for_notebooks_hold_the_seeds_of_streams_and_twins(sweep: Sweep) -> None:
    add_pair(sweep, 1, 3.0, 0.05, data_order=7)
    add_twins(sweep, "cross_entropy", {1: [3.4]})
    columns = load(sweep.folder)
    assert (columns["seed"], type(columns["seed"][0])) == ([1, 1, 1], int)
    assert columns["seeds.data_order"] == [7, None, 7]
    assert columns["seeds.twin"] == [None, 1, None]
    assert "seeds.dropout" not in columns
