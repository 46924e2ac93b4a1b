"""Planted faults of a sweep, and the sentence that a reader finds for each."""

import json
from typing import Any

import pytest
from made_runs import Sweep, comparison_of, edit_record, page_text, read, rows_of

from losslab.comparison.caveats import ALONE, ONE_LEARNING_RATE, PRETRAINED_START, TRAINED_START
from losslab.comparison.rows import ONE_START
from losslab.errors import UserError


def test_runs_that_need_no_word_have_none_but_of_their_learning_rate(paired_sweep: Sweep) -> None:
    assert comparison_of(paired_sweep).caveats == [ONE_LEARNING_RATE]
    assert "- one learning rate for all losses: this ranks settings, not losses\n" in read(comparison_of(paired_sweep))


def test_a_missing_seed_is_left_out_of_the_pairs(sweep: Sweep) -> None:
    for seed in (1, 2, 3):
        sweep.add("cross_entropy", seed, 3.0 + seed)
    for seed in (2, 3):
        sweep.add("square", seed, 2.5 + seed)
    c = comparison_of(sweep)
    row = next(row for row in c.rows if row.label == "square")
    assert (row.n, row.paired.n, row.paired.mean) == (2, 2, -0.5)
    told = (
        "square: no completed run for seed 1; means over unequal seeds are not comparable, the differences are\n"
        "- one learning"
    )
    assert told in read(c)
    assert "2 shared seeds: too few for a claim" in read(c)


def test_diverged_failed_and_unfinished_runs_are_told_apart(sweep: Sweep) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.0 + seed * 1.1)
    sweep.add("square", 3, status="diverged", error="step 40: the objective is not finite")
    sweep.add("square", 10, status="diverged")
    sweep.add("square", 5, status="failed", error="OutOfMemoryError: 2 GiB\n  " + "x" * 300)
    sweep.add("hinge", 1, status="interrupted")
    sweep.add("hinge", 2, status="planned")
    c = comparison_of(sweep)
    summary = read(c)
    for told in (
        "- square: 2 diverged, seed 3, 10 (step 40: the objective is not finite): a result, but not in these means\n",
        "- hinge: 1 interrupted, seed 1: not in these means\n",
        "- hinge: 1 planned, seed 2: not in these means\n",
    ):
        assert told in summary
    (failed,) = [text for text in c.caveats if "failed" in text]
    assert failed.startswith("square: 1 failed, seed 5 (OutOfMemoryError: 2 GiB xxx") and failed.endswith(
        "x…): not in these means"
    )
    assert len(failed) < 270 and "\n" not in failed
    rows = {row.label: row for row in c.rows}
    assert (rows["square"].n, rows["square"].lost) == (2, "2 diverged, 1 failed")
    assert "| 2 diverged, 1 failed " in summary
    assert list(rows)[-1] == "hinge", "without a result, last"
    assert (rows["hinge"].n, rows["hinge"].lost) == (0, "1 interrupted, 1 planned")
    assert rows["hinge"].verdict.text == "no result" and "no result" in summary
    assert not any("hinge: no completed run" in text for text in c.caveats), "said already"


def test_a_baseline_without_a_result_leaves_nothing_to_pair(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, status="failed", error="killed")
    sweep.add("square", 1, 3.0)
    c = comparison_of(sweep)
    assert {row.label: row.verdict.text for row in c.rows} == {
        "square": "no seed in common with the baseline",
        "cross_entropy": "baseline",
    }
    assert "cross_entropy: 1 failed, seed 1 (killed): not in these means" in read(c)
    assert "There is nothing to compare the baseline with." in page_text(c)


@pytest.mark.parametrize(
    "missing", [{}, {"test/nll": 2.0}, {"test/nll_scaled": None}], ids=["no metrics", "another", "null"]
)
def test_a_completed_run_without_the_metric_is_told(missing: dict[str, Any], sweep: Sweep) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.5 + seed)
    sweep.add("cross_entropy", 3, 6.0)
    sweep.add("square", 3, metrics=missing)
    told = "- square: no test/nll_scaled (missing or not finite) for seed 3\n"
    assert told in read(comparison_of(sweep)), "a NaN, which is null in the record, vanished without a word"


def test_a_loss_without_a_posterior_has_no_nll_linked_and_is_told_why(sweep: Sweep) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed, metrics={"test/nll_linked": 3.1 + seed})
        sweep.add("hinge", seed, 3.5 + seed, metrics={"test/nll_linked": None})
    c = comparison_of(sweep, metric="test/nll_linked")
    told = "- hinge: no test/nll_linked (missing or not finite) for seed 1, 2; this loss has no link in closed form\n"
    assert told in read(c)
    assert c.rows[-1].verdict.text == "no result"
    primary = comparison_of(sweep)
    read(primary)
    assert "| — |" not in page_text(primary)


def test_an_infinite_nll_is_a_dash_everywhere(sweep: Sweep) -> None:
    """Entmax gives tokens a probability of exactly zero: its record says null."""
    for seed in (1, 2, 3):
        sweep.add("cross_entropy", seed, 3.0 + seed, val=3.0, metrics={"test/nll": 3.1 + seed, "val/nll": 3.0})
        sweep.add("entmax", seed, 2.9 + seed, val=2.9, metrics={"test/nll": None, "val/nll": None})
    c = comparison_of(sweep)
    read(c)
    assert next(row for row in c.also["test/nll"] if row.label == "entmax").n == 0
    other = comparison_of(sweep, metric="test/nll")
    assert "- entmax: no test/nll (missing or not finite) for seed 1, 2, 3\n" in read(other)


def test_the_newest_of_repeated_runs_is_told(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 4.0, started="2026-01-01")
    sweep.add("square", 1, 2.0, started="2026-01-02")
    assert "- square: of repeated runs the newest counts (1 older left out)\n" in read(comparison_of(sweep))


def test_pairs_that_did_not_start_alike_are_told(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 3.0, hashes={"batches": "others"})
    sweep.add("hinge", 1, 3.0, hashes={"backbone_init": "x", "batches": "y"})
    summary = read(comparison_of(sweep))
    left_out = "left out, because it is no pair\n"
    assert f"- square, seed 1: differs from the baseline in batches: {left_out}" in summary
    assert f"- hinge, seed 1: differs from the baseline in backbone_init and batches: {left_out}" in summary
    assert summary.count("no pair with the baseline: every start or code differs") == 2


def test_seeds_that_started_from_the_same_weights_are_told_first_and_claim_nothing(sweep: Sweep) -> None:
    for seed in range(1, 7):
        sweep.add("cross_entropy", seed, 3.0 + 0.01 * seed, hashes={"backbone_init": "same"})
        sweep.add("square", seed, 4.0 + 0.011 * seed, hashes={"backbone_init": "same"})
    (sweep.folder / "torn").mkdir()
    (sweep.folder / "torn/run.json").write_text("{")
    c = comparison_of(sweep)
    for place, loss in enumerate(("cross_entropy", "square")):
        told = f"{loss}: different seeds with equal initial weights (backbone_init), seed 1, 2, 3, 4, 5, 6: "
        assert c.caveats[place].startswith(told)
    assert "cannot be read" in c.caveats[2]
    (row,) = (row for row in c.rows if row.label == "square")
    assert (row.paired, row.differences, row.verdict.text) == (None, {}, ONE_START)
    answer = read(c).partition("## Protocol")[0]
    assert ONE_START in answer and " worse" not in answer and "p =" not in answer


def test_seeds_with_weights_of_their_own_count_without_those_that_share_some(sweep: Sweep) -> None:
    for seed in (1, 2, 3, 4):
        hashes = {"backbone_init": "same"} if seed > 2 else None
        sweep.add("cross_entropy", seed, 3.0 + seed, hashes=hashes)
        sweep.add("square", seed, 3.5 + seed if seed < 3 else 99.0, hashes=hashes)
    c = comparison_of(sweep)
    assert next(row for row in c.rows if row.label == "square").differences == {1: 0.5, 2: 0.5}
    assert "seed 3, 4: they are no independent repetitions" in c.caveats[1]


@pytest.mark.parametrize(("other", "seeds"), [("x", []), (None, [1]), ("same", [1])])
def test_projections_must_have_started_alike_where_both_records_say_so(
    sweep: Sweep, other: str | None, seeds: list[int]
) -> None:
    sweep.add("cross_entropy", 1, 3.0, hashes={"projection_init": "same"})
    sweep.add("square", 1, 3.0, hashes=None if other is None else {"projection_init": other})
    c = comparison_of(sweep)
    assert list(next(row for row in c.rows if row.label == "square").differences) == seeds
    assert c.caveats[0].startswith("square, seed 1: differs from the baseline in projection_init:") == (seeds == [])


def test_pairs_that_started_alike_count_without_the_others(sweep: Sweep) -> None:
    for seed in (1, 2, 3):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.5 + seed if seed < 3 else 99.0, hashes={"batches": "x"} if seed == 3 else None)
    (row,) = (row for row in comparison_of(sweep).rows if row.label == "square")
    assert row.differences == {1: 0.5, 2: 0.5}


ORIGINS: dict[str, tuple[dict[str, Any], str]] = {
    "device": ({"hardware": {"device": "cuda", "device_name": "H100"}}, "the device"),
    "torch": ({"versions": {"torch": "2.11"}}, "the version of torch"),
}


@pytest.mark.parametrize(("changes", "told"), ORIGINS.values(), ids=ORIGINS)
def test_runs_of_several_origins_are_told(changes: dict[str, Any], told: str, sweep: Sweep) -> None:
    for loss in ("cross_entropy", "square"):
        folder = sweep.add(loss, 1, 3.0)
        edit_record(folder, versions={"torch": "2.13"})
    edit_record(folder, **changes)
    assert f"- these runs differ in {told}: see each run.json\n" in read(comparison_of(sweep))


def test_other_numbers_of_threads_are_told(sweep: Sweep) -> None:
    for loss, threads in (("cross_entropy", 1), ("square", 2)):
        edit_record(sweep.add(loss, 1, 3.0), hardware={"threads": threads})
    told = "- runs used 1 or 2 threads, which add up in another order: trainer.threads=1 makes them alike\n"
    assert told in read(comparison_of(sweep))


def test_a_run_that_was_continued_with_other_code_is_told(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    folder = sweep.add("square", 1, 3.1)
    provenance = json.loads((folder / "run.json").read_text())["provenance"]
    edit_record(folder, provenance=provenance | {"changes": [{"step": 50}]})
    told = "- 1 run(s) were continued with other code or versions than they began with\n"
    assert told in read(comparison_of(sweep))


def test_unequal_numbers_of_validations_are_told_and_no_setting_of_their_own(sweep: Sweep) -> None:
    for seed in (1, 2):
        sweep.add("cross_entropy", seed, 3.0 + seed, val=3.0)
        sweep.add("square", seed, 3.5 + seed, val=3.5, changes={"trainer.val_check_interval": 30})
    c = comparison_of(sweep)
    told = (
        "- unequal numbers of validations (4 of square, 10 of cross_entropy): more of them find a better best "
        "checkpoint\n"
    )
    assert told in read(c)
    assert {row.label: row.setting for row in c.rows} == {"cross_entropy": "", "square": ""}


def test_a_start_from_trained_weights_is_told(sweep: Sweep) -> None:
    for loss, value in (("cross_entropy", 3.0), ("square", 3.1)):
        for seed in (1, 2):
            sweep.add(loss, seed, value, changes={"init_from": "source"}, hashes={"init_from": "f" * 64})
    assert TRAINED_START in comparison_of(sweep).caveats


def test_continued_runs_whose_best_checkpoint_counts_late_are_told(sweep: Sweep) -> None:
    for loss, best_from in (("cross_entropy", None), ("square", 60)):
        folder = sweep.add(loss, 1, 3.0)
        continued = {"step": 60, "best_from": best_from}
        edit_record(folder, provenance={"choices": {"loss": loss}, "continued": continued})
    told = [caveat for caveat in comparison_of(sweep).caveats if "continued run" in caveat]
    assert told == [
        "square: the best checkpoint of 1 continued run(s) counts from step 60 on, and not from the beginning"
    ]


@pytest.mark.parametrize("seeds", [1, 2, 5, 6])
def test_too_few_seeds_for_a_claim_are_told(seeds: int, sweep: Sweep) -> None:
    for seed in range(1, seeds + 1):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("square", seed, 3.5 + seed * 1.01)
    summary = read(comparison_of(sweep))
    told = f"- {seeds} shared seed{'s' * (seeds > 1)}: too few for a claim, because no exact test can reach p < 0.05"
    assert (told in summary) == (seeds < 6)
    assert ("seed=auto adds seeds until there is a verdict (docs/stopping.md)" in summary) == (seeds < 6)
    assert ("One seed cannot separate a loss from luck." in summary) == (seeds == 1)
    if seeds == 1:
        assert "square against cross_entropy: undecided, +0.5100 nats per token. One seed" in summary


def test_runs_that_were_best_at_their_last_step_might_improve(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0, metrics={"step": 100.0})
    sweep.add("square", 1, 3.1)
    assert "- 1 of 2 runs were best at their last step and might still improve" in read(comparison_of(sweep))
    changes = {"trainer.val_check_interval": 100}
    sweep.add("focal", 1, 3.1, metrics={"step": 100.0}, changes=changes)
    summary = read(comparison_of(sweep))
    assert "- 1 of 3 runs were best at their last step and might still improve" in summary
    assert "- 1 of 3 runs were validated at their last step alone: that it is their best does not" in summary


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_loss_alone_has_nothing_to_be_compared_with(seeds: int, sweep: Sweep) -> None:
    for seed in range(1, seeds + 1):
        sweep.add("cross_entropy", seed, 3.0 + seed)
    c = comparison_of(sweep)
    assert c.caveats == [ALONE], "nothing else matters then"
    assert f"- {ALONE}\n" in read(c)
    assert "| baseline |" in read(c)


def test_no_runs_at_all_and_no_completed_runs_say_how_to_go_on(sweep: Sweep) -> None:
    with pytest.raises(UserError, match="is neither a folder of runs nor a"):
        rows_of(sweep)
    sweep.add("cross_entropy", 1, status="interrupted")
    sweep.add("square", 1, status="failed")
    sweep.add("square", 2, status="failed")
    with pytest.raises(UserError) as caught:
        rows_of(sweep)
    assert str(caught.value) == (
        "no run is completed yet (cross_entropy: 1 interrupted; square: 2 failed); the command that started them "
        "continues them"
    )


def test_runs_that_all_diverged_are_not_said_to_continue(sweep: Sweep) -> None:
    sweep.add("square", 1, status="diverged")
    with pytest.raises(UserError, match=r"square: 1 diverged\); diverged runs are results, and stay"):
        rows_of(sweep, baseline="square")


@pytest.mark.parametrize("metrics", [{}, {"test/nll": None}], ids=["none", "null"])
def test_completed_runs_without_any_number_are_not_called_unfinished(metrics: dict[str, Any], sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, metrics=metrics)
    with pytest.raises(UserError, match=r"these 1 completed run\(s\) hold no metric that is finite"):
        rows_of(sweep)


def test_a_verdict_that_another_metric_denies_is_told(sweep: Sweep) -> None:
    for seed in range(1, 7):
        for loss, shift in (("cross_entropy", 0.0), ("square", -0.2)):
            metrics: dict[str, float | None] = {
                "test/nll": 4.0 + seed - shift * (1 + seed / 50),
                "test/top1": 0.4 + seed / 100 - shift / 10 - shift * seed / 1000,
            }
            sweep.add(loss, seed, 3.0 + seed + shift * (1 + seed / 50), metrics=metrics)
    summary = read(comparison_of(sweep))
    assert "- square is better than cross_entropy: -0.2140 nats per token" in summary
    assert "It holds on test/top1. But it is worse on test/nll." in summary


def test_rows_of_several_tokenizers_are_told(sweep: Sweep) -> None:
    for loss, tokenizer in (("cross_entropy", "bpe"), ("square", "bytes")):
        sweep.add(loss, 1, 3.0, changes={"data.tokenizer": tokenizer}, hashes={"tokenizer": tokenizer})
    told = "- these runs have different tokenizers, and test/nll_scaled counts tokens: compare it within a tokenizer"
    assert told in read(comparison_of(sweep, mixed=True)).replace("\\_", "_")


def test_a_tokenizer_that_loses_text_is_told(sweep: Sweep) -> None:
    for loss, lossless in (("cross_entropy", True), ("square", False)):
        edit_record(
            sweep.add(loss, 1, 3.0), provenance={"choices": {"loss": loss}, "text": {"tokenizer_lossless": lossless}}
        )
    assert "- the tokenizer of square does not keep the text" in read(comparison_of(sweep))


def test_runs_from_before_a_key_was_there_belong_to_those_with_its_old_value(sweep: Sweep) -> None:
    sweep.add("cross_entropy", 1, 3.0)
    sweep.add("square", 1, 3.5, changes={"data.rules": 1, "data.separator": None, "data.val_path": None})
    assert rows_of(sweep)["square"].paired.mean == pytest.approx(0.5)
    sweep.add("hinge", 1, 3.5, changes={"data.rules": 2})
    with pytest.raises(UserError, match=r"differ in data.rules and cannot be compared: 1 \(2 runs\), 2 \(1 run"):
        comparison_of(sweep)


@pytest.fixture
def two_codes(sweep: Sweep) -> Sweep:
    """Cross-entropy by one version of losslab alone; square's third seed by a later one."""
    for seed in (1, 2, 3):
        sweep.add("cross_entropy", seed, 3.0 + seed, hashes={"code": "a" * 64})
        sweep.add("square", seed, 3.5 + seed + seed / 100, hashes={"code": ("b" if seed == 3 else "a") * 64})
    return sweep


def test_runs_of_other_code_make_no_pairs_and_come_first(two_codes: Sweep) -> None:
    c = comparison_of(two_codes)
    assert c.caveats[1].startswith(
        "these runs were made by 2 versions of losslab's code (hashes.code in run.json): 5 by aaaaaaaaaa, 1 by "
        "bbbbbbbbbb: square seed 3; a row that holds both is a mean over both, pairs of unequal code are left out "
        "(--mixed"
    )
    why = "differs from the baseline in the version of losslab's code: left out, because it is no pair"
    assert f"square, seed 3: {why}" in c.caveats
    assert {row.label: list(row.differences) for row in c.rows} == {"cross_entropy": [], "square": [1, 2]}


def test_mixed_pairs_runs_of_other_code_and_still_says_so(two_codes: Sweep) -> None:
    c = comparison_of(two_codes, mixed=True)
    assert "--mixed pairs them all the same" in c.caveats[0]
    assert {row.label: list(row.differences) for row in c.rows} == {"cross_entropy": [], "square": [1, 2, 3]}


def test_a_mean_over_two_versions_of_ones_own_loss_is_told(sweep: Sweep) -> None:
    for seed in (1, 2, 3):
        sweep.add("cross_entropy", seed, 3.0 + seed)
        sweep.add("mine", seed, 3.5 + seed, hashes={"own_code": "x" if seed == 2 else "y"})
    told = "mine: its own code (own_code in run.json) is not the same for seed 1, 3 and seed 2, and the row is a mean"
    assert comparison_of(sweep).caveats[0].startswith(told)


@pytest.mark.parametrize("varied", [True, False])
def test_seeds_of_a_pretrained_model_begin_with_equal_weights_and_batches_of_their_own(
    sweep: Sweep, varied: bool
) -> None:
    for seed in range(1, 4):
        hashes = {"backbone_init": "same", "model.name": "weights"} | ({} if varied else {"batches": "same"})
        sweep.add("cross_entropy", seed, 3.0 + 0.01 * seed, hashes=hashes)
        sweep.add("square", seed, 4.0 + 0.011 * seed, hashes=hashes)
    c = comparison_of(sweep)
    assert ("different seeds with equal initial weights" in c.caveats[0]) is not varied
    assert len(next(row for row in c.rows if row.label == "square").differences) == (3 if varied else 0)
    assert PRETRAINED_START in c.caveats
