"""A person's own loggers: what they receive, and what becomes of a run whose logger fails."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, call

import pytest
from lightning.pytorch.callbacks import LearningRateMonitor

import losslab.loggers
from losslab.errors import UserError
from losslab.loggers.base import Session
from losslab.loggers.mlflow import MLflow
from losslab.loggers.wandb import WandB
from losslab.run_folder import RunFolder
from losslab.training import run as training_run
from runs import find_runs, only_run, stopping_after

OWN = """
import random

import numpy
import torch
from lightning.pytorch.loggers.logger import Logger

CALLS = []

class Notes(Logger):
    def __init__(self, *, save_dir: str, colour: str = "red"):
        self.folder, self.colour = save_dir, colour

    name = property(lambda self: "notes")
    version = property(lambda self: "1")

    def log_hyperparams(self, params):
        CALLS.append(("hparams", params))

    def log_metrics(self, metrics, step=None):
        random.random(), numpy.random.rand(), torch.rand(3)
        CALLS.append(("metrics", step, metrics))

    def save(self):
        CALLS.append(("save",))

    def finalize(self, status):
        CALLS.append(("finalize", status))

class Dying(Notes):
    def log_metrics(self, metrics, step=None):
        if step >= 4:
            raise ConnectionError("no route to host")

    def save(self):
        assert False, "never asked again"

    def finalize(self, status):
        raise RuntimeError("that neither")

class Stillborn(Notes):
    def __init__(self):
        raise OSError(28, "No space left on device")

class Nothing:
    pass
"""


@pytest.fixture
def own(workplace: Path) -> Path:
    (workplace / "own_loggers.py").write_text(OWN)
    sys.modules.pop("own_loggers", None)
    return workplace


def add(**classes: str) -> list[str]:
    return [f"+loggers.{name}._target_=own_loggers.{kind}" for name, kind in classes.items()]


def calls() -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = sys.modules["own_loggers"].CALLS
    return found


def test_loggers_that_fail_are_named_once_and_change_no_number(
    own: Path, run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny("model.dropout=0.1", "name=plain") == 0
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(own))
    found: list[Any] = []

    def with_monitor(*arguments: Any) -> Any:
        trainer = make_trainer(*arguments)
        trainer.callbacks.append(LearningRateMonitor(logging_interval="step"))
        found.extend(trainer.loggers)
        return trainer

    make_trainer = training_run.make_trainer
    monkeypatch.setattr(training_run, "make_trainer", with_monitor)
    capsys.readouterr()
    typed = ["loggers=[tensorboard,wandb]", *add(notes="Notes", dying="Dying", stillborn="Stillborn")]
    assert run_tiny("model.dropout=0.1", "name=noisy", *typed, "loggers.wandb.mode=online") == 0
    assert len(found) == 5 and found[2].folder == str(only_run(Path("outputs/noisy"))[0].absolute())
    said = [line for line in "".join(capsys.readouterr()).splitlines() if "loggers." in line]
    assert len(said) == 3
    assert (
        "loggers.stillborn is lost from step 0 on, and the run goes on without it: loggers.stillborn: Stillborn refuses"
        in said[0]
    )
    assert "loggers.wandb is lost from step 0 on" in said[1] and "No API key" in said[1]
    assert "loggers.dying is lost from step 4 on, and the run goes on without it: ConnectionError: no ro" in said[2]
    (plain, before), (noisy, after) = (only_run(Path("outputs") / name) for name in ("plain", "noisy"))
    assert (noisy / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
    assert after.metrics == before.metrics and after.identity == before.identity
    assert [error["step"] for error in after.provenance["loggers"]["dying"]["lost"]] == [4]
    check_calls(before.metrics)
    logged = [made[2] for made in calls() if made[0] == "metrics"]
    assert any(name.startswith("lr-") for values in logged for name in values), "Lightning's callbacks find the loggers"


def check_calls(metrics: dict[str, dict[str, float]]) -> None:
    first, *others, last = ((*made, None, None)[:3] for made in calls())
    assert first[0] == "hparams" and first[1]["loss"] == "cross_entropy" and first[1]["width"] == 16
    assert last[:2] == ("finalize", "success"), "once, behind the final values"
    rows = {step: values for kind, step, values in others if kind == "metrics" and "train/objective" in values}
    assert [*rows] == [1, 2, 4, 6, 8]
    assert rows[4]["val/nll"] == rows[4]["best/val/nll"]
    assert {name: rows[8][name] for name in ("val/nll", "test/nll")}.items() <= metrics["final"].items()
    kinds = [made[0] for made in others]
    assert kinds.count("finalize") == 0 and kinds.count("save") >= 2


def test_a_run_that_is_stopped_or_fails_says_so(
    own: Path, run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopping_after(4):
        assert run_tiny(*add(notes="Notes")) == 1
    assert [made[1] for made in calls() if made[0] == "metrics"] == [1, 2, 4]
    assert calls()[-1] == ("finalize", "failed"), "Lightning has no other word"
    calls().clear()

    def fail(*arguments: Any) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(training_run, "build_network", fail)
    assert run_tiny(*add(notes="Notes")) == 1
    assert [made[0] for made in calls()] == ["hparams", "finalize"], "it did not come to train"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (add(mine="Nothing"), "loggers.mine: Nothing is no Logger of Lightning's"),
        ([*add(mine="Notes"), "+loggers.mine.color=blue"], "no key 'loggers.mine.color': did you mean 'loggers.mine.c"),
        (["+loggers.mine.colour=blue"], "loggers.mine has no _target_"),
        (["loggers=mlflow", "loggers.mlflow.tracking_uri=./mlruns"], "MLflow keeps no runs in folders any more"),
        (["loggers=wandb", "loggers.wandb.mode=of"], "loggers.wandb.mode must be 'online' or 'offline' or null"),
    ],
    ids=str,
)
def test_what_cannot_be_a_logger_is_refused(
    own: Path, run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str], typed: list[str], sentence: str
) -> None:
    assert sentence in refusal(run_tiny, capsys, typed)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_with_its_extra(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr("losslab.loggers.base.find_spec", lambda package: None)
    sentence = f"loggers={name} needs the package {name}: pip install 'losslab[{name}]'"
    assert sentence in refusal(run_tiny, capsys, [f"loggers={name}"])


def refusal(run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str], typed: list[str]) -> str:
    """The sentence with which a command is refused before any run's file is written."""
    try:
        assert run_tiny(*typed) == 2
    except UserError as error:
        return str(error)
    assert find_runs(Path("outputs/runs")) == []
    return capsys.readouterr().err


def test_nothing_of_others_is_imported_where_it_was_not_chosen() -> None:
    for name in ("wandb", "mlflow"):
        tree = ast.parse((Path(losslab.loggers.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
        outside = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [line for line in outside if re.match(rf"(import|from) {name}\b", line)]


@pytest.mark.parametrize(
    ("uri", "right"),
    [("sqlite:///runs.db", True), ("https://a.org", True), ("databricks", True), ("runs", False), ("file:///a", False)],
)
def test_mlflow_takes_databases_and_servers(uri: str, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with nullcontext() if right else pytest.raises(UserError, match=r"name a database, such as sqlite:///mlflow\.db"):
        MLflow(save_dir="", tracking_uri=uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with nullcontext() if right else pytest.raises(UserError, match=r"is a folder, and MLflow"):
        MLflow(save_dir="")


def test_a_run_that_the_server_has_goes_on_where_it_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps up to 5 were sent by a session that was killed behind the checkpoint of step 3."""
    package = MagicMock(run=None)
    package.__spec__ = MagicMock()  # find_spec asks for it
    there = package.init.return_value
    there.starting_step, there.offline = 6, False
    monkeypatch.setitem(sys.modules, "wandb", package)
    logger = WandB(save_dir=str(tmp_path), project="p", entity="e", finish_timeout=7.0)
    session = Session(run=RunFolder(tmp_path / "run"), sweep="s", tags={"seed": "1"}, step=3, kept={"id": "abc"})
    assert logger.begin(session) == 6
    chosen = package.init.call_args.kwargs
    assert (chosen["id"], chosen["resume"], chosen["group"], chosen["name"]) == ("abc", "allow", "s", "run")
    assert (chosen["project"], chosen["entity"], chosen["tags"]) == ("p", "e", ["seed=1"])
    assert package.Settings.call_args.kwargs["finish_timeout"] == 7.0
    for step in (4, 5, 6):
        logger.log_metrics({"val/nll": float(step)}, step=step)
    assert there.log.call_args_list == [call({"val/nll": 6.0}, step=6)]
    assert there.summary.update.call_args_list == [call({"val/nll": 4.0}), call({"val/nll": 5.0})]
    there.finish.side_effect = TimeoutError("still uploading")
    with pytest.raises(TimeoutError):
        logger.finalize("completed")
    package.teardown.assert_called_once()
