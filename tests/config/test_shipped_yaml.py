"""Every file under conf/ composes, and its components bind to the classes they name."""

from pathlib import Path

import pytest

from losslab.choices import conf_dir
from losslab.config.binding import import_target
from losslab.config.compose import compose_plain
from losslab.config.jobs import job_overrides, open_multirun
from losslab.config.schema import COMPONENTS
from losslab.config.trust import allowed, targets
from losslab.losses.adaptive_softmax import AdaptiveSoftmax
from losslab.losses.coral import Coral
from tiny_pretrained import save_bert

YAMLS = sorted(path.relative_to(conf_dir()) for path in conf_dir().rglob("*.yaml"))
CHOICES = [
    f"{path.parent.as_posix()}={path.stem}" for path in YAMLS if path.parent.parts and path.parent.parts[0] != "hydra"
]
OF_FOLDERS = ("model=pretrained", "experiment=finetune_banking77")
"""Choices that name the folder of a model."""
GROUPS = [
    "loss",
    "model",
    "model/size",
    "task",
    "data",
    "optimizer",
    "scheduler",
    "trainer",
    "loggers",
    "experiment",
    "debug",
]


def test_every_group_has_files() -> None:
    found = {choice.partition("=")[0] for choice in CHOICES}
    assert set(GROUPS) <= found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("choice", CHOICES)
def test_a_shipped_file_composes_and_binds(choice: str, settle, request: pytest.FixtureRequest) -> None:
    named = [f"model.name={request.getfixturevalue('folder')}"] if choice in OF_FOLDERS else []
    config = settle(choice, *named)
    assert all(isinstance(config[group]["_target_"], str) for group in COMPONENTS)
    assert config["trainer"]["max_steps"] > 0
    assert config["trainer"]["micro_batch_size"] * config["trainer"]["accumulate_grad_batches"] > 0
    assert targets(config) <= allowed(), "resume refuses classes that it does not know"


@pytest.mark.parametrize("loss", [choice for choice in CHOICES if choice.startswith("loss=")])
def test_a_loss_yaml_spells_out_the_defaults_of_its_class(loss: str, settle) -> None:
    """A yaml names every key that can be set."""
    assert compose_plain([loss])["loss"].keys() == settle(loss)["loss"].keys()


def test_the_smoke_experiment_trains_every_loss_that_fits_its_task(settle) -> None:
    tried = {job[0].removeprefix("loss=") for job in job_overrides(open_multirun(["experiment=smoke"]))}
    task = import_target(settle("experiment=smoke")["task"]["_target_"], "task")
    shipped = [choice for choice in CHOICES if choice.startswith("loss=")]
    kinds = {choice: import_target(settle(choice)["loss"]["_target_"], "loss") for choice in shipped}
    of_other_outputs = {AdaptiveSoftmax, Coral}  # no row for each token, to which the tied embedding has one
    fits = {
        choice
        for choice, kind in kinds.items()
        if kind.target_kind in task.accepts and not kind.reads_teacher and kind not in of_other_outputs
    }
    assert tried == {choice.removeprefix("loss=") for choice in fits}


@pytest.mark.parametrize("target", sorted(allowed()))
def test_the_allow_list_holds_classes_that_exist(target: str) -> None:
    assert isinstance(import_target(target, "allowed"), type)
