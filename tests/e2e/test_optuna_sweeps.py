"""Searches by Optuna: killed, continued, stopped, pruned, and compared."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from losslab.commands.clean import clean
from losslab.commands.status import look
from losslab.records import read
from losslab.sweeps.local import Sweep
from runs import TINY, find_runs, losslab
from sweeps import kill_tree, wait_until

SEARCH = ["-m", "hydra/sweeper=optuna", "hydra.launcher.slots=2", "optimizer.lr=tag(log,interval(1e-4,1e-1))"]
BOTH = ["loss=cross_entropy,focal", "loss.gamma=choice(1,2)", "hydra.sweeper.startup_trials=2"]
FOLDER = Path("outputs/t")


def trials() -> Counter[tuple[str, int]]:
    """How many runs each trial has."""
    own = [read(run).trial for run in find_runs(FOLDER)]
    return Counter((trial["study"], trial["number"]) for trial in own if trial)


def begun() -> int:
    return len(find_runs(FOLDER))


def test_a_search_that_is_killed_twice_ends_with_equal_budgets_and_each_trial_once(
    workplace: Path, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SEARCH, *BOTH, "name=t", "hydra.sweeper.n_trials=4", "trainer.max_steps=12"]
    words += ["checkpoints.every_n_steps=1"]
    for count in (3, 6):
        process = losslab("train", *TINY, *words, cwd=workplace)
        wait_until(lambda count=count: begun() >= count, process)  # type: ignore[misc]
        kill_tree(process.pid)
        process.communicate()
    assert run_tiny(*words) == 0
    said = capsys.readouterr().out
    assert f"in 2 studies in {FOLDER}, " in said
    assert trials().keys() == {(study, n) for study, _ in trials() for n in range(4)}
    assert set(trials().values()) == {1} and trials().total() == 8
    assert {read(run).status for run in find_runs(FOLDER)} == {"completed"}
    ended = r"^study \S+ \(loss=\w+\): 4 of 4 trials: 4 completed; best val/"
    assert len(re.findall(ended, said, re.MULTILINE)) == 2


def test_pruned_runs_are_named_and_stay_until_they_are_asked_for(
    workplace: Path, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["name=t", "hydra.launcher.slots=1", "trainer.max_steps=40", "trainer.val_check_interval=2"]
    search = [
        *SEARCH[:2],
        "hydra.sweeper.sampler=grid",
        "hydra.sweeper.pruner=median",
        "hydra.sweeper.startup_trials=1",
    ]
    rates = "optimizer.lr=choice(0.02,1e-6)"
    assert run_tiny(*words, *search, rates, "hydra.sweeper.n_trials=2") == 0
    said = capsys.readouterr().out
    assert "1 pruned" in said and "optimizer.lr=1e-06: val/nll_scaled" in said
    states = {line.run.rpartition("lr=")[2].partition("-warmup")[0]: line for line in look(FOLDER)}
    (pruned,) = [line for line in states.values() if line.state == "pruned"]
    assert pruned.trial["number"] == 1 and pruned.error is not None and "worse than the median" in pruned.error
    assert 2 <= pruned.step < 40 and pruned.left is None
    assert run_tiny(*words, *search, rates, "hydra.sweeper.n_trials=2") == 0, "a pruned one does not go on by itself"
    assert "2 of them done" in capsys.readouterr().out
    assert clean(FOLDER, checkpoints=True, cache=False, dry_run=True) == 0
    assert "checkpoints of pruned runs" in " ".join(capsys.readouterr().out.split())
    assert run_tiny(*words[:1], *words[2:], "optimizer.lr=1e-6", "--yes") == 0, "the person asks for it"
    assert [line.state for line in look(FOLDER)] == ["completed"] * 2


def test_a_stop_ends_the_drawing_and_the_same_command_goes_on(
    workplace: Path,
    run_tiny: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*SEARCH, "name=t", "hydra.sweeper.n_trials=4", "trainer.max_steps=200", "hydra.launcher.slots=1"]
    hear = Sweep._hear

    def stop_at_once(self: Sweep, run: object) -> None:
        hear(self, run)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "_hear", stop_at_once)
        assert run_tiny(*words) == 130
    said = capsys.readouterr()
    assert "interrupted" in said.out and "the same command continues" in said.err
    assert begun() == 1
    short = [word for word in words if "n_trials" not in word]
    assert run_tiny(*short, "hydra.sweeper.n_trials=1") == 0
    assert trials().total() == 1 and begun() == 1
