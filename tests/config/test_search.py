"""Search spaces in Hydra's sweep syntax: what is drawn from, what stays an axis, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from losslab.config.jobs import open_multirun, study_spaces
from losslab.config.search import Dimension, StudySpace, with_hint
from losslab.errors import UserError

OPTUNA = "hydra/sweeper=optuna"
LR = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


def spaces(*words: str) -> list[StudySpace]:
    return study_spaces(open_multirun([OPTUNA, *words]))


def dimension(values: str) -> Dimension:
    (space,) = spaces(f"optimizer.lr={values}")
    (found,) = space.dimensions
    return found


def test_each_combination_of_lists_is_a_study_and_keys_apply_where_they_belong() -> None:
    found = spaces("loss=cross_entropy,focal", LR, "loss.gamma=choice(1,2)", "seed=1,2", "optimizer=adamw,sgd")
    assert [(space.fixed, [one.key for one in space.dimensions], space.seeds) for space in found] == [
        (("loss=cross_entropy", "optimizer=adamw"), ["optimizer.lr"], ("seed=1", "seed=2")),
        (("loss=cross_entropy", "optimizer=sgd"), ["optimizer.lr"], ("seed=1", "seed=2")),
        (("loss=focal", "optimizer=adamw"), ["optimizer.lr", "loss.gamma"], ("seed=1", "seed=2")),
        (("loss=focal", "optimizer=sgd"), ["optimizer.lr", "loss.gamma"], ("seed=1", "seed=2")),
    ]
    job = found[2].job(["0.003", "2"], "seed=2")
    assert job == ["loss=focal", "optimizer=adamw", "optimizer.lr=0.003", "loss.gamma=2", "seed=2"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ("choice(1,2,2)", {"values": ("1", "2"), "step": None}),
        ("range(1,8,2)", {"values": ("1", "3", "5", "7"), "low": 1, "high": 7, "step": 2}),
        ("range(0,1,0.25)", {"values": ("0.0", "0.25", "0.5", "0.75"), "high": 0.75, "step": 0.25}),
        ("range(3,0,-1)", {"values": ("3", "2", "1"), "low": 1, "high": 3, "step": 1}),
        ("tag(log,range(1,5))", {"log": True, "step": 1}),
        ("interval(1,8)", {"low": 1.0, "high": 8.0, "is_whole": False}),
        ("int(interval(1,8))", {"low": 1, "high": 8, "is_whole": True}),
        ("int(tag(log,interval(1,8)))", {"log": True, "is_whole": True}),
    ],
)
def test_values_are_read(values: str, wanted: dict[str, Any]) -> None:
    found = dimension(values)
    assert {name: getattr(found, name) for name in wanted} == wanted


def test_numbers_of_an_interval_have_four_digits_and_stay_inside() -> None:
    log = dimension("tag(log,interval(1e-4,1e-2))")
    assert [log.spell(x) for x in (0.000123456, 0.00999999, 1e-4)] == ["0.0001235", "0.01", "0.0001"]
    plain = dimension("interval(1000,1001)")
    assert [plain.spell(x) for x in (1000.123456, 1000.99999, 0.0)] == ["1000.123", "1001.0", "1000.0"]
    assert dimension("range(0,1,0.25)").spell(0.7500000001) == "0.75"


def test_samples_show_every_value_of_a_list_and_a_number_between_the_ends() -> None:
    (space,) = spaces("optimizer.lr=interval(0,1)", "optimizer.weight_decay=choice(0,0.1,0.2,0.3)")
    rows = [[word.partition("=")[2] for word in job] for job in space.samples()]
    assert [row[1] for row in rows] == ["0", "0.1", "0.2", "0.3"]
    assert [row[0] for row in rows] == ["0.0", "1.0", "0.318", "0.0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lr=interval(1e-2,1e-3)"], "the start of an interval lies below its end"),
        (["optimizer.lr=tag(log,interval(0,1))"], "needs a start above 0"),
        (["optimizer.lr=tag(lg,interval(1,2))"], "no tag 'lg': did you mean 'log'"),
        (["optimizer.lr=tag(log,choice(1,2))"], r"tag\(log, …\) is for interval"),
        (["optimizer.lr=tag(log,range(1,9,2))"], "needs the step 1"),
        (["optimizer.lr=shuffle(choice(1,2))"], "leave out shuffle"),
        (["optimizer.lr=range(1,1)"], "no value at all"),
        (["loss=choice(square,focal)"], "list its choices with commas"),
        ([LR, "seed=choice(1,2)"], "list seeds with commas: a trial is their mean"),
        (["trainer.devices=choice(1,2)"], "no result depends on trainer.devices"),
        (["loss=square,focal", LR, "zip=[loss,optimizer.lr]"], "optimizer.lr is searched: leave it out of zip"),
        (["loss=square,focal", "loss.gama=interval(1,2)"], "did you mean 'loss.gamma'"),
        (["hydra.sweeper.n_trial=3", LR], "did you mean 'hydra.sweeper.n_trials'"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        spaces(*words)
    assert "\n" not in str(error.value)


def test_without_a_search_an_interval_names_the_sweeper() -> None:
    with pytest.raises(UserError, match="add hydra/sweeper=optuna"):
        open_multirun([LR, "seed=1,2"])


def test_a_whole_number_is_shown_how_it_is_written() -> None:
    found = spaces("model.num_layers=interval(1,4)", "data.batch_size=tag(log,interval(1,64))")
    assert with_hint("model.num_layers must be a whole number, not 1.6", found).endswith(
        "; write model.num_layers=int(interval(1,4))"
    )
    assert with_hint("data.batch_size must be a whole number, not 1.6", found).endswith(
        "; write data.batch_size=tag(log, int(interval(1,64)))"
    )
    assert with_hint("data.path is no file", found) == "data.path is no file"
