"""The file of a sequential sweep, and the standing of a loss on its first seeds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from losslab.errors import UserError
from losslab.records import Record
from losslab.run_folder import SEQUENTIAL, RunFolder
from losslab.sequential.ledger import Ledger, Terms
from losslab.sequential.prefix import Ended, standing
from losslab.sequential.rule import FIRST_LOOK, Rule

START = {"backbone_init": "a", "batches": "b", "code": "c"}


def make_terms(**changes: Any) -> Terms:
    plain: dict[str, Any] = {"metric": "test/nll", "higher_is_better": False, "margin": 0.01, "level": 0.05}
    plain |= {"max_seeds": 8, "first_seed": 1, "baseline": "cross_entropy", "threads": 1}
    plain["losses"] = {"cross_entropy": {"loss.k": 1, "optimizer.lr": 0.1}, "square": {"loss.k": 2}}
    return Terms(**plain | changes)


def ends(*values: float | None, first: int = 1, **changes: str) -> dict[int, Ended]:
    return {
        seed: Ended(value, "" if value is not None else "diverged", START | changes)
        for seed, value in enumerate(values, start=first)
    }


def test_a_ledger_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = Ledger.open(tmp_path, make_terms(losses={"cross_entropy": {"betas": (0.9, 0.95)}, "square": {}}))
    run = RunFolder(tmp_path / "square-1")
    other = Ledger.read(tmp_path)
    assert other is not None
    other.note("cross_entropy", 1, RunFolder(tmp_path / "ce-1"))
    written.note("square", 1, run)
    read = Ledger.read(tmp_path)
    assert read is not None and read.runs == {"cross_entropy": {1: "ce-1"}, "square": {1: "square-1"}}
    assert read.terms.losses["cross_entropy"] == {"betas": [0.9, 0.95]}
    assert Ledger.open(tmp_path, make_terms(losses={"cross_entropy": {"betas": (0.9, 0.95)}, "square": {}})).runs
    assert Ledger.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_seeds": 9}, "max_seeds=8, and this command says 9"),
        ({"margin": 0.02}, "decide=0.01, and this command says 0.02"),
        ({"losses": {"cross_entropy": {}, "focal": {}}}, "the losses=cross_entropy, square, and"),
        ({"baseline": "square"}, "baseline=cross_entropy, and this command says square"),
        ({"first_seed": 9}, "the first seed=1, and this command says 9"),
        (
            {"losses": {"cross_entropy": {"loss.k": 1, "optimizer.lr": 0.2}, "square": {"loss.k": 2}}},
            "optimizer.lr of cross_entropy=0.1, and this command says 0.2",
        ),
    ],
)
def test_a_rule_stays_what_it_was(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    Ledger.open(tmp_path, make_terms())
    before = (tmp_path / SEQUENTIAL).read_bytes()
    with pytest.raises(UserError) as refused:
        Ledger.open(tmp_path, make_terms(**changes))
    assert told in str(refused.value)
    assert (tmp_path / SEQUENTIAL).read_bytes() == before


def test_threads_and_the_order_of_losses_may_differ(tmp_path: Path) -> None:
    terms = make_terms()
    Ledger.open(tmp_path, terms)
    turned = dict(reversed(terms.losses.items()))
    assert Ledger.open(tmp_path, make_terms(threads=4, losses=turned)).terms.threads == 1


def test_results_that_came_before_the_rule_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    run.path.mkdir()
    run.write(Record(identity="a", name="t", status="failed"))
    Ledger.open(tmp_path, make_terms())
    (tmp_path / SEQUENTIAL).unlink()
    run.write(Record(identity="a", name="t", status="completed"))
    with pytest.raises(UserError, match="holds 1 result already"):
        Ledger.open(tmp_path, make_terms())
    assert not (tmp_path / SEQUENTIAL).exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.pop("margin"),
        lambda c: c.update(runs=[]),
        lambda c: c.update(version=9),
        lambda c: c.update(baseline="focal"),
    ],
)
def test_a_damaged_ledger_is_one_sentence(spoil: Any, tmp_path: Path) -> None:
    Ledger.open(tmp_path, make_terms())
    content = json.loads((tmp_path / SEQUENTIAL).read_text())
    spoil(content)
    (tmp_path / SEQUENTIAL).write_text(json.dumps(content))
    with pytest.raises(UserError, match=SEQUENTIAL):
        Ledger.read(tmp_path)


LOOK, MOST = FIRST_LOOK, FIRST_LOOK + 4
RULE = Rule(margin=0.1, max_seeds=MOST, losses=1)
PLAIN = {"first_seed": 1, "higher_is_better": False}


def around(value: float, count: int) -> list[float]:
    """Values with little spread."""
    return [value + 0.01 * (k % 3) for k in range(count)]


def test_a_gap_in_the_seeds_keeps_later_ones_out() -> None:
    own, base = ends(*around(2.0, LOOK)), ends(*[1.0] * LOOK)
    found = standing(RULE, base, own, **PLAIN)
    assert (found.verdict, found.seeds) == ("worse", LOOK)
    without = {seed: one for seed, one in own.items() if seed != 2}
    for kept in ((base, without), ({seed: base[seed] for seed in without}, own)):
        found = standing(RULE, *kept, **PLAIN)
        assert (found.seeds, found.verdict, found.differences) == (1, "", (1.0,))
    assert standing(RULE, {}, own, **PLAIN).seeds == 0


def test_the_interval_is_the_rules_and_turns_with_the_metric() -> None:
    wide, base = ends(*(2 + (-1.0) ** k for k in range(LOOK))), ends(*[1.0] * LOOK)
    found = standing(RULE, base, wide, **PLAIN)
    assert (found.low, found.high) == RULE.interval(found.differences) and not found.verdict
    assert found.low < found.mean < found.high
    turned = standing(RULE, base, wide, first_seed=1, higher_is_better=True)
    assert (turned.low, turned.high, turned.mean) == pytest.approx((found.low, found.high, found.mean))
    own = ends(*around(2.0, LOOK))
    assert standing(RULE, base, own, first_seed=1, higher_is_better=True).verdict == "better"
    assert standing(RULE, base, own, **PLAIN).verdict == "worse"
    assert standing(RULE, own, base, **PLAIN).verdict == "better"


def test_before_the_first_look_nothing_is_decided() -> None:
    found = standing(RULE, ends(*[1.0] * (LOOK - 1)), ends(*around(2.0, LOOK - 1)), **PLAIN)
    assert found.seeds == LOOK - 1 and not found.verdict and math.isinf(found.low) and math.isinf(found.high)


def test_differences_without_spread_show_sameness_alone() -> None:
    values = around(1.0, LOOK)
    base = ends(*values)
    assert standing(RULE, base, base, **PLAIN).verdict == "equivalent"
    rounded = ends(*(value + 1e-9 * (3 + k % 2) for k, value in enumerate(values)))
    assert standing(RULE, base, rounded, **PLAIN).verdict == "equivalent", "and not worse, by their rounding"
    assert standing(RULE, base, ends(*(value + 1 for value in values)), **PLAIN).verdict == ""


def test_pairs_that_are_none_are_left_out() -> None:
    base, own = ends(*[1.0] * MOST), ends(*around(2.0, MOST))
    base[2], own[3] = Ended(None, "diverged", START), Ended(2.01, "", START | {"code": "other"})
    found = standing(RULE, base, own, **PLAIN)
    assert found.verdict == "worse" and found.seeds == LOOK + 2 and len(found.differences) == LOOK
    assert found.left_out == ((2, "the baseline diverged"), (3, "trained by other code than the baseline"))


def test_a_loss_of_other_code_throughout_is_undecided_and_not_lost() -> None:
    found = standing(RULE, ends(*[1.0] * MOST), ends(*[2.0] * MOST, code="other"), **PLAIN)
    assert found.verdict == "undecided" and found.seeds == MOST and math.isnan(found.mean)


def test_a_budget_ends_undecided_at_seeds_that_begin_elsewhere() -> None:
    own = ends(*[(-1.0) ** k for k in range(MOST)], first=101)
    found = standing(RULE, ends(*[0.0] * MOST, first=101), own, first_seed=101, higher_is_better=False)
    assert (found.verdict, found.seeds) == ("undecided", MOST)
