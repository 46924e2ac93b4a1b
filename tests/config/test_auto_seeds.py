"""Words that have seeds added: seed=auto max_seeds=40 decide=0.01."""

from __future__ import annotations

from pathlib import Path

import pytest

from losslab.config.auto_seeds import AutoSeeds
from losslab.config.jobs import job_overrides, open_multirun, single_job
from losslab.errors import UserError
from losslab.sweeps.deciding import check_losses, choose_baseline, name_losses

RULE = ["seed=auto", "max_seeds=40", "decide=0.01"]


def test_the_rule_is_no_part_of_a_job() -> None:
    opened = open_multirun(["loss=cross_entropy,square", *RULE, "first_seed=101", "baseline=square"])
    assert opened.auto == AutoSeeds(max_seeds=40, margin=0.01, baseline="square", first_seed=101)
    assert job_overrides(opened) == [["loss=cross_entropy"], ["loss=square"]]
    assert opened.count == 2 and opened.common == []
    assert open_multirun(["loss=cross_entropy,square", "seed=1,2"]).auto is None


def test_typed_seeds_replace_those_of_an_experiment_either_way(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for name, seed in (("listed", "1,2"), ("grown", "auto")):
        more = "" if name == "listed" else "      max_seeds: 20\n      decide: 0.02\n"
        (tmp_path / "experiment" / f"{name}.yaml").write_text(
            "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
            f"      loss: cross_entropy,square\n      seed: {seed}\n{more}"
        )
    opened = open_multirun(["experiment=listed", *RULE], tmp_path)
    assert opened.auto is not None and opened.count == 2
    opened = open_multirun(["experiment=grown", "decide=0.05"], tmp_path)
    assert opened.auto == AutoSeeds(max_seeds=20, margin=0.05, baseline="", first_seed=1)
    opened = open_multirun(["experiment=grown", "seed=1,2,3"], tmp_path)
    assert opened.auto is None and opened.count == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=auto"], "seed=auto needs max_seeds=40, .*, and decide=0.01"),
        (["seed=auto", "max_seeds=9"], "seed=auto needs decide=0.01"),
        (["seed=auto,1", *RULE[1:]], "leave the others out"),
        (["seed=1,2", "max_seeds=9"], "max_seeds=9 goes with seed=auto"),
        (
            ["seed=auto", "decide=0.1", "max_seeds=9,10"],
            "max_seeds must be one whole number from 0 to .*, not '9,10'",
        ),
        (["seed=auto", "decide=0.1", "max_seeds=-4"], "max_seeds must be one whole number"),
        ([*RULE, "first_seed=-1"], "first_seed must be one whole number from 0 to 2147483647, not '-1'"),
        (["seed=auto", "decide=0", "max_seeds=9"], "decide must be one number above 0"),
        (["seed=auto", "decide=nan", "max_seeds=9"], "decide must be one number above 0"),
        (["seed=auto", "decide=0.1,0.2", "max_seeds=9"], "decide must be one number above 0"),
        ([*RULE, "hydra/sweeper=optuna", "optimizer.lr=interval(1e-4,1e-2)"], "search first"),
        ([*RULE[:1], "max_seed=9", RULE[2]], "there is no key 'max_seed': did you mean 'max_seeds'"),
        ([*RULE, "first_sed=9"], "there is no key 'first_sed': did you mean 'first_seed'"),
        ([*RULE, "zip=[loss,seed]"], "zip names 'seed', which is no axis"),
    ],
)
def test_words_that_make_no_rule_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        open_multirun(["loss=cross_entropy,square", *words])


@pytest.mark.parametrize("word", ["seed=auto", "max_seeds=3", "decide=0.1", "baseline=square", "first_seed=2"])
def test_a_single_run_has_no_rule(word: str) -> None:
    with pytest.raises(UserError, match=f"{word} is about a multirun .*: add -m"):
        single_job(["loss=focal", word])


def name(*words: str) -> list[str]:
    jobs = job_overrides(open_multirun([*words, *RULE]))
    return name_losses([tuple(job) for job in jobs], [{"loss": job[0].partition("=")[2]} for job in jobs])


def test_losses_are_called_as_in_compare() -> None:
    assert name("loss=cross_entropy,focal", "loss.gamma=2") == ["cross_entropy", "focal"]
    assert name("loss=cross_entropy,focal", "loss.gamma=1,2") == ["cross_entropy", "focal gamma=1", "focal gamma=2"]
    assert name("loss=focal:gamma=1,focal:gamma=5") == ["focal gamma=1", "focal gamma=5"]
    both = name("loss=cross_entropy,focal", "optimizer.lr=1e-3,3e-3", "zip=[loss,optimizer.lr]")
    assert both == ["cross_entropy", "focal"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["loss=cross_entropy"], "cross_entropy is alone"),
        (["loss=cross_entropy,focal", "optimizer.lr=1e-3,3e-3"], "several of these runs are cross_entropy"),
    ],
)
def test_what_is_no_choice_between_losses_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        name(*words)


def test_the_baseline_is_cross_entropy_or_the_first_or_the_one_that_was_asked_for() -> None:
    labels = ["focal gamma=1", "focal gamma=2", "cross_entropy", "square"]
    assert choose_baseline("", labels) == "cross_entropy" and choose_baseline("", labels[:2]) == "focal gamma=1"
    assert choose_baseline("square", labels) == "square" and choose_baseline("focal gamma=2", labels) == "focal gamma=2"
    for asked, told in (("focal", "the name of several: focal gamma=1"), ("sqare", "did you mean 'square'")):
        with pytest.raises(UserError, match=told):
            choose_baseline(asked, labels)


def test_losses_that_are_the_same_or_of_another_question_are_refused() -> None:
    plain = {"loss.k": 15, "optimizer.lr": 0.1, "data.path": "a", "model.width": 16}
    check_losses({"one": plain, "two": plain | {"loss.k": 5, "optimizer.lr": 0.3}})
    for other, told in (
        ({"optimizer.lr": 0.3}, "one and two are the same loss"),
        ({"loss.k": 5, "data.path": "b"}, "differ in data.path"),
        ({"loss.k": 5, "model.width": 32}, "differ in model.width"),
    ):
        with pytest.raises(UserError, match=told):
            check_losses({"one": plain, "two": plain | other})
