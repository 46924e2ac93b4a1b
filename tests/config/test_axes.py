"""Axes that apply to some of the listed choices, choices with settings of their own, and axes walked together."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from losslab.config.compose import compose_job
from losslab.config.jobs import job_overrides, open_multirun, single_job
from losslab.config.words import choices, ready, right_spelling, split
from losslab.errors import UserError

OWN_MODEL = "_target_: my_model.Model\nhidden: 32\ncontext: 32\n"


def expand(*typed: str, config_dir: Path | None = None) -> tuple[list[str], list[str]]:
    """The jobs, as one text each, and the notes."""
    opened = open_multirun([ready(word) for word in typed], config_dir)
    jobs = job_overrides(opened)
    assert opened.count == len(jobs)
    for job in jobs:
        compose_job(job, config_dir)
    return [" ".join(job) for job in jobs], opened.notes


@pytest.mark.parametrize(
    ("typed", "jobs", "note"),
    [
        (
            ["loss=cross_entropy,focal", "loss.gamma=1,2"],
            ["loss=cross_entropy", "loss=focal loss.gamma=1", "loss=focal loss.gamma=2"],
            "loss.gamma applies to focal; cross_entropy has no such key and runs once",
        ),
        (
            ["loss.gamma=1,2", "loss=cross_entropy,focal,brier"],
            ["loss=cross_entropy", "loss.gamma=1 loss=focal", "loss=brier", "loss.gamma=2 loss=focal"],
            "loss.gamma applies to focal; cross_entropy and brier have no such key and run once",
        ),
        (
            ["loss=cross_entropy,focal", "loss.gamma=1"],
            ["loss=cross_entropy", "loss=focal loss.gamma=1"],
            "loss.gamma applies to focal; cross_entropy has no such key",
        ),
        (
            ["loss=cross_entropy,focal", "loss.gamma=1", "seed=1,2"],
            [f"loss={loss} seed={seed}" for loss in ("cross_entropy", "focal loss.gamma=1") for seed in (1, 2)],
            "loss.gamma applies to focal; cross_entropy has no such key",
        ),
        (
            ["scheduler=constant,cosine", "scheduler.final_fraction=0,0.1"],
            ["scheduler=constant", *(f"scheduler=cosine scheduler.final_fraction={x}" for x in ("0", "0.1"))],
            "scheduler.final_fraction applies to cosine; constant has no such key and runs once",
        ),
        (
            ["loss=sum,focal", "loss@loss.first=focal,brier"],
            ["loss=sum loss@loss.first=focal", "loss=sum loss@loss.first=brier", "loss=focal"],
            "loss@loss.first applies to sum; focal has no such choice and runs once",
        ),
        (
            ["loss=sum", "loss@loss.first=focal,brier", "loss.first.gamma=1,2"],
            [
                *(f"loss=sum loss@loss.first=focal loss.first.gamma={g}" for g in (1, 2)),
                "loss=sum loss@loss.first=brier",
            ],
            "loss.first.gamma applies to focal; brier has no such key and runs once",
        ),
        (
            ["loss=focal(gamma=1),focal,cross_entropy", "loss.gamma=2,3"],
            [*(f"loss=focal loss.gamma={g}" for g in (1, 2, 3)), "loss=cross_entropy"],
            "loss.gamma applies to focal; cross_entropy has no such key and runs once; "
            "focal(gamma=1) sets it itself and runs once",
        ),
        (["seed=1,1,2"], ["seed=1", "seed=2"], "seed lists 1 more than once; each run is trained once"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_axis_applies_to_the_choices_that_have_its_key(typed: list[str], jobs: list[str], note: str) -> None:
    assert expand(*typed) == (jobs, [note])


def test_a_model_of_ones_own_takes_no_part_in_an_axis_of_sizes(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text(OWN_MODEL)
    jobs, notes = expand("model=decoder,mine", "model/size=nano,micro", config_dir=tmp_path)
    assert jobs == ["model=decoder model/size=nano", "model=decoder model/size=micro", "model=mine"]
    assert notes == ["model/size applies to decoder; mine has no such choice and runs once"]
    for word in ("model/size=small", "+model/size=small"):
        with pytest.raises(UserError, match=r"set model\.KEY=VALUE"):
            compose_job(["model=mine", word], tmp_path)


def test_the_axis_of_an_experiment_meets_the_axis_that_was_typed(tmp_path: Path) -> None:
    jobs, notes = expand("experiment=lr_fairness", "loss.k=1,2")
    assert len(jobs) == (1 + 1 + 2) * 4 * 3
    assert notes == ["loss.k applies to square; cross_entropy and kl_divergence have no such key and run once"]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/own.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      loss: cross_entropy,focal(gamma=1)\n      optimizer.lr: 1e-3,1e-2\n      zip: '[loss,optimizer.lr]'\n"
    )
    jobs, _ = expand("experiment=own", config_dir=tmp_path)
    assert jobs == [
        "loss=cross_entropy optimizer.lr=0.001 experiment=own",
        "loss=focal loss.gamma=1 optimizer.lr=0.01 experiment=own",
    ]


@pytest.mark.parametrize(
    ("typed", "jobs"),
    [
        ("loss=focal(gamma=1),cross_entropy", ["loss=focal loss.gamma=1", "loss=cross_entropy"]),
        (
            "loss=focal:gamma=1:sample_dependent=true,square",
            ["loss=focal loss.gamma=1 loss.sample_dependent=true", "loss=square"],
        ),
        ("loss=focal(gamma=1,sample_dependent=true)", ["loss=focal loss.gamma=1 loss.sample_dependent=true"]),
        (
            "loss=cross_entropy(class_weights=[1,2]),focal",
            ["loss=cross_entropy loss.class_weights=[1,2]", "loss=focal"],
        ),
        ("loss@loss.first=focal(gamma=1),brier", ["loss@loss.first=focal loss.first.gamma=1", "loss@loss.first=brier"]),
        ("trainer=cpu(max_steps=1e2)", ["trainer=cpu trainer.max_steps=100"]),
    ],
)
def test_a_choice_may_carry_settings(typed: str, jobs: list[str]) -> None:
    more = ["loss=sum"] if "@" in typed else []
    assert [job.removeprefix("loss=sum ") for job in expand(*more, typed)[0]] == jobs
    if len(jobs) == 1:
        assert " ".join(single_job([typed])) == jobs[0]


@pytest.mark.parametrize(
    ("zips", "count"), [(["zip=[loss,optimizer.lr]"], 8), (["zip=[[loss,optimizer.lr],[seed,model.width]]"], 4)]
)
def test_axes_are_walked_together(zips: list[str], count: int) -> None:
    axes = ["loss=cross_entropy,focal", "seed=1,2", "optimizer.lr=1e-3,1e-2", "model.width=32,64"]
    jobs, _ = expand(*axes, *zips)
    assert len(jobs) == count
    assert all(("cross_entropy" in job) == ("lr=0.001" in job) for job in jobs)
    apart, _ = expand(*axes, "zip=[loss,optimizer.lr]", "zip=[seed,model.width]")
    assert len(apart) == 4
    assert all(("seed=1" in job) == ("width=32" in job) for job in apart)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["zip=[loss,seed]", "seed=1,2"], "zip names 'loss', which is no axis of this command"),
        (["zip=[sede,loss]", "seed=1,2", "loss=a,b"], "did you mean 'seed'?"),
        (["zip=[seed,loss]", "seed=1,2,3", "loss=a,b"], "seed has 3 values and loss has 2 values"),
        (["zip=[seed,loss]", "zip=[seed,name]", "seed=1,2", "loss=a,b", "name=a,b"], "zip names seed twice"),
        (["zip=seed,loss", "seed=1,2"], "write zip=[loss,optimizer.lr]"),
        (["zip=[seed]", "seed=1,2"], "it takes two to walk together"),
        (["loss=cross_entropy,focal", "loss.gama=1"], "there is no key 'loss.gama': did you mean 'loss.gamma'?"),
        (["loss=cross_entropy,focal", "+loss.gamma=1"], "loss.gamma belongs to focal, which is listed too"),
        (["loss=focal(gamma=1),focal(gamma=2)", "loss.gamma=3"], "loss.gamma is set by focal(gamma=1) already"),
        (["loss=focal(gamma=1,2)"], "cannot be read at '2'"),
        (["loss=focal(),square"], "cannot be read at ''"),
        (["model/size=small(width=4),nano"], "takes no settings of its own"),
        (["loss=focl(gamma=1),square"], "did you mean 'focal'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_walked_is_told(typed: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        expand(*typed)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["zip=[loss,seed]"], "add -m"),
        (["loss=focal(gamma=1),brier"], "is a list of values: add -m"),
        (["loss=focal(gamma=1)", "loss.gamma=2"], "loss.gamma is set by loss=focal(gamma=1) already"),
    ],
)
def test_a_single_run_has_one_choice(typed: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        single_job(typed)
    assert told in str(caught.value)


def test_a_glob_and_a_choice_with_settings_stand_side_by_side() -> None:
    assert expand("loss=glob(squa*),focal(gamma=1)")[0] == ["loss=square", "loss=focal loss.gamma=1"]
    assert choices("loss=glob(*)") == [("loss=glob(*)",)]


def test_commas_inside_brackets_and_quotes_do_not_split() -> None:
    assert split("a(b,c),[d,e],'f,g',h") == ["a(b,c)", "[d,e]", "'f,g'", "h"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trainer.max_steps=1e3", "trainer.max_steps=1000"),
        ("trainer.max_steps=1.5e3,200", "trainer.max_steps=1500,200"),
        ("seed=2.0", "seed=2"),
        ("trainer.max_steps=1e-3", "trainer.max_steps=1e-3"),
        ("trainer.max_steps=1e400", "trainer.max_steps=1e400"),
        ("optimizer.lr=1e3", "optimizer.lr=1e3"),
        ("name=1e3", "name=1e3"),
        ("data.path=a=b.txt", "data.path='a=b.txt'"),
    ],
)
def test_words_are_made_ready_for_hydra(word: str, expected: str) -> None:
    assert ready(word) == expected


@pytest.mark.parametrize("value", ["a,b.txt", "x (1).txt", "a{b", "it's=x", "a[b"])
def test_a_value_that_cannot_be_read_is_shown_as_it_is_written(value: str) -> None:
    right = right_spelling(f"data.path={value}")
    assert right is not None
    (word,) = shlex.split(right)
    assert compose_job([word])[0]["data"]["path"] == value
