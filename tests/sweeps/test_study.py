"""One study: what it draws, what it keeps over a kill, and when it says no."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from made_studies import GAMMA, LR, make_settings, open_studies, open_study

from losslab.commands.command_line import parse
from losslab.commands.expand import expand
from losslab.commands.train import train
from losslab.errors import UserError
from losslab.metric import Metric
from losslab.sweeps.journal import JOURNAL
from losslab.sweeps.settings import SearchSettings
from losslab.sweeps.study import Drawn, Study, check_grid


def finish(study: Study, drawn: Drawn) -> None:
    study.tell(drawn.number, "completed", abs(math.log10(float(drawn.values[0])) + 3))


def run_all(study: Study) -> list[Drawn]:
    found = []
    while (drawn := study.ask()) is not None:
        found.append(drawn)
        finish(study, drawn)
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_trials_come_again_whether_or_not_the_command_was_killed(tmp_path: Path, sampler: str) -> None:
    whole = run_all(open_study(tmp_path / "whole", LR, GAMMA, sampler=sampler))
    assert len({one.values for one in whole}) == len(whole) == 6
    assert [one.number for one in whole] == [*range(6)]
    found = []
    for _ in range(3):
        study = open_study(tmp_path / "killed", LR, GAMMA, sampler=sampler)
        for drawn in study.left_running():
            finish(study, drawn)
        for _ in range(2):
            if (drawn := study.ask()) is not None:
                found.append(drawn)
                if len(found) % 2:
                    finish(study, drawn)
    study = open_study(tmp_path / "killed", LR, GAMMA, sampler=sampler)
    assert found == whole[: len(found)] and len(found) == 6
    other = run_all(open_study(tmp_path / "other", LR, GAMMA, sampler=sampler, seed=2))
    assert other != whole


def test_random_draws_of_keys_that_losses_share_are_the_same(tmp_path: Path) -> None:
    words = ["loss=cross_entropy,focal", LR, "loss.gamma=interval(1,2)"]
    plain, focal = open_studies(tmp_path, *words, sampler="random")
    assert [one.values[0] for one in run_all(plain)] == [one.values[0] for one in run_all(focal)]


def test_the_same_command_goes_on_and_a_larger_budget_adds_trials(tmp_path: Path) -> None:
    assert len(run_all(open_study(tmp_path, LR))) == 6
    assert run_all(open_study(tmp_path, LR)) == []
    assert [one.number for one in run_all(open_study(tmp_path, LR, n_trials=8))] == [6, 7]


def test_a_trial_left_behind_keeps_its_number_and_setting(tmp_path: Path) -> None:
    study = open_study(tmp_path, LR, GAMMA)
    first, second = study.ask(), study.ask()
    assert first is not None and second is not None
    study.report(second.number, 10, 3.0)
    finish(study, first)
    again = open_study(tmp_path, LR, GAMMA)
    assert again.left_running() == [second]
    again.report(second.number, 10, 4.0)  # trained again from an earlier checkpoint: the first number stays
    assert again.trials()[second.number].intermediate_values == {10: 3.0}


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_kill_inside_any_write_loses_no_trial(tmp_path: Path, cut: int) -> None:
    study = open_study(tmp_path, LR, GAMMA)
    drawn = study.ask()
    journal = tmp_path / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    enqueued = next(i for i, line in enumerate(lines) if b"fixed_params" in line)
    kept = lines[: enqueued + cut]
    journal.write_bytes(b"".join(kept) + (lines[enqueued + cut][:9] if enqueued + cut < len(lines) else b""))
    again = open_study(tmp_path, LR, GAMMA)
    found = [*again.left_running()] or [again.ask()]
    assert found == [drawn]
    assert len(again.trials()) == 1


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        (["optimizer.lr=interval(1e-4,1e-2)"], {}, r"begun with optimizer.lr=tag\(log,interval\(1e-4,1e-2\)\)"),
        ([LR, GAMMA], {}, "begun with loss.gamma=one value"),
        ([LR, "seed=1,2"], {}, "begun with the seeds=1, and this command says 1,2"),
        ([LR], {"sampler": "random"}, "hydra.sweeper.sampler=tpe"),
        ([LR], {"seed": 3}, "hydra.sweeper.seed=1, and this command says 3"),
        ([LR], {"pruner": "median"}, "hydra.sweeper.pruner=none"),
    ],
)
def test_a_study_that_was_begun_otherwise_says_what_differs(
    tmp_path: Path, words: list[str], changes: dict[str, object], said: str
) -> None:
    run_all(open_study(tmp_path, LR))
    with pytest.raises(UserError, match=said):
        open_study(tmp_path, *words, **changes)


def test_other_fixed_settings_are_another_study(tmp_path: Path) -> None:
    first = open_study(tmp_path, LR, fixed={"trainer.max_steps": 8})
    second = open_study(tmp_path, LR, fixed={"trainer.max_steps": 9})
    assert first.name != second.name and second.trials() == []


def test_a_small_space_is_searched_once_and_a_grid_in_its_order(tmp_path: Path) -> None:
    small = open_study(tmp_path / "small", "optimizer.lr=choice(1e-3,1e-2)", GAMMA)
    assert small.budget == 4
    assert sorted(one.values for one in run_all(small)) == [(a, b) for a in ("0.001", "0.01") for b in ("1", "2")]
    grid = open_study(tmp_path / "grid", "optimizer.lr=choice(1e-3,1e-2)", GAMMA, sampler="grid")
    assert [one.values for one in run_all(grid)] == [(a, b) for a in ("0.001", "0.01") for b in ("1", "2")]
    part = open_study(tmp_path / "part", "optimizer.lr=range(1,101)", sampler="grid")
    assert len({one.values for one in run_all(part)}) == 6


def test_a_study_without_a_search_is_one_trial(tmp_path: Path) -> None:
    plain, focal = open_studies(tmp_path, "loss=cross_entropy,focal", GAMMA)
    assert (plain.budget, focal.budget) == (1, 2)
    assert plain.ask() == Drawn(0, ()) and plain.ask() is None


def test_diverged_trials_count_as_the_worst_and_failed_ones_stay_in_the_budget(tmp_path: Path) -> None:
    study = open_study(tmp_path, LR, n_trials=8)
    ends = ["completed", "diverged", "failed", "refused", "pruned", "completed", "diverged", "completed"]
    for end in ends:
        drawn = study.ask()
        assert drawn is not None
        if end == "pruned":
            study.report(drawn.number, 5, 9.0)
        study.tell(drawn.number, end, 1.0 if end == "completed" else None)
    assert study.ask() is None and study.statuses() == ends
    assert [trial.value for trial in study.trials() if trial.state.name == "COMPLETE"] == [1, math.inf, 1, math.inf, 1]
    assert open_study(tmp_path, LR, n_trials=8).best() == (1.0, Drawn(0, study._values(study.trials()[0].params)))


def test_larger_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    accuracy = Metric("accuracy", "accuracy", "", True, 0.01, frozenset())
    study = open_study(tmp_path, LR, metric=accuracy)
    for value in (0.1, 0.9, None):
        drawn = study.ask()
        assert drawn is not None
        study.tell(drawn.number, "diverged" if value is None else "completed", value)
    best = study.best()
    assert best is not None and best[0] == 0.9 and study.trials()[2].value == -math.inf


@pytest.mark.parametrize(("pruner", "verdict"), [("median", "median"), ("halving", "best quarter")])
def test_bad_validations_are_pruned_once_some_trials_are_complete(tmp_path: Path, pruner: str, verdict: str) -> None:
    study = open_study(tmp_path, LR, pruner=pruner, n_trials=12, startup_trials=3)
    said = []
    for i in range(8):
        drawn = study.ask()
        assert drawn is not None
        said.append(any(study.report(drawn.number, step, 1.0 if i < 4 else 5.0) for step in (10, 20, 40)))
        study.tell(drawn.number, "pruned" if said[-1] else "completed", 1.0)
    assert not any(said[:3]), "too few to compare with"
    assert any(said[4:]) and verdict in study.verdict


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"pruner": "mean"}, "hydra.sweeper.pruner cannot be 'mean': did you mean 'median'"),
        ({"n_trials": 0}, "n_trials must be a number from 1"),
        ({"n_trials": True}, "not True"),
        ({"seed": -1}, "seed must be a number from 0"),
        ({"pruner": "median", "n_trials": 2}, "would prune nothing"),
        ({"trials": 3}, "no key 'hydra.sweeper.trials'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_settings(**changes)


def test_a_grid_over_an_interval_is_refused(tmp_path: Path) -> None:
    study = open_study(tmp_path, LR)
    with pytest.raises(UserError, match=r"optimizer.lr=.* has no end: list them with choice"):
        check_grid(study.space)
    assert isinstance(study.settings, SearchSettings)


def test_a_missing_optuna_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.sweeps.journal.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'losslab\[tune\]'"):
        expand(parse(["-m", "hydra/sweeper=optuna", LR]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([LR, "hydra/launcher=basic"], "works with hydra/launcher=local, not basic"),
        (["optimizer.lr=1e-3,1e-2"], "finds nothing to search"),
        ([LR, "hydra.sweeper.sampler=grid"], "has no end"),
    ],
)
def test_searches_that_cannot_start_say_why(monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.setattr("losslab.sweeps.server.warm_up", lambda: None)
    with pytest.raises(UserError, match=message):
        expand(parse(["-m", "hydra/sweeper=optuna", *words]))


def test_the_sweeper_belongs_to_a_multirun(workplace: Path) -> None:
    with pytest.raises(UserError, match="hydra/sweeper=optuna is about a multirun: add -m"):
        train(["hydra/sweeper=optuna"])
