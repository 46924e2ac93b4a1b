"""The jobs of a multirun, in Hydra's order, and a person's own folder of yaml files."""

import os
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from losslab.choices import conf_dir
from losslab.config.compose import compose_plain, group_choices
from losslab.config.jobs import is_multirun, job_overrides, open_multirun
from losslab.config.paths import check_config_dir
from losslab.errors import UserError

SQUARE = "_target_: losslab.losses.square.Square\nk: 1.0\nm: 1.0\n"
SWEEP = """# @package _global_
name: swept
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: 1,2
      loss: square,kl_divergence
"""


def expand(typed: list[str], config_dir: Path | None = None) -> list[list[str]]:
    opened = open_multirun(typed, config_dir)
    jobs = job_overrides(opened)
    assert opened.count == len(jobs)
    return jobs


@pytest.fixture
def own_conf(tmp_path):
    """A function that makes a person's folder of yaml files."""

    def make(files: dict[str, str], name: str = "my conf") -> Path:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(content)
        return tmp_path / name

    return make


LOSSES = sorted(path.stem for path in (conf_dir() / "loss").glob("*.yaml"))


@pytest.mark.parametrize(
    ("typed", "jobs"),
    [
        (["seed=1"], [["seed=1"]]),
        ([], [[]]),
        (["seed=3,1,2"], [["seed=3"], ["seed=1"], ["seed=2"]]),
        (
            ["loss=square,kl_divergence", "name=x", "seed=1,2"],
            [
                ["loss=square", "name=x", "seed=1"],
                ["loss=square", "name=x", "seed=2"],
                ["loss=kl_divergence", "name=x", "seed=1"],
                ["loss=kl_divergence", "name=x", "seed=2"],
            ],
        ),
        (["seed=range(1,4)"], [["seed=1"], ["seed=2"], ["seed=3"]]),
        (["optimizer.betas=[0.9,0.95],[0.8,0.9]"], [["optimizer.betas=[0.9,0.95]"], ["optimizer.betas=[0.8,0.9]"]]),
        (["model/size=nano,micro"], [["model/size=nano"], ["model/size=micro"]]),
        (["loss=glob(*)"], [[f"loss={name}"] for name in LOSSES]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else "",
)
def test_jobs_come_in_hydras_order(typed: list[str], jobs: list[list[str]]) -> None:
    assert expand(typed) == jobs


def test_jobs_of_an_experiment_come_before_those_that_were_typed(own_conf) -> None:
    folder = own_conf({"experiment/swept.yaml": SWEEP})
    assert expand(["experiment=swept", "optimizer.lr=0.1,0.2"], folder) == [
        [f"seed={seed}", f"loss={loss}", "experiment=swept", f"optimizer.lr={lr}"]
        for seed in (1, 2)
        for loss in ("square", "kl_divergence")
        for lr in (0.1, 0.2)
    ]


def test_a_glob_finds_files_of_ones_own(own_conf) -> None:
    folder = own_conf({"loss/my_a.yaml": SQUARE, "loss/my_b.yaml": SQUARE})
    assert expand(["loss=glob(my_*)"], folder) == [["loss=my_a"], ["loss=my_b"]]


def test_only_the_configuration_itself_asks_for_a_multirun(own_conf) -> None:
    folder = own_conf({"experiment/swept.yaml": SWEEP})
    assert is_multirun(["experiment=swept"], folder)
    assert is_multirun(["hydra.mode=MULTIRUN"])
    assert not is_multirun(["seed=2"])
    assert not is_multirun(["seed=1,2"]), "a sweep without -m is answered later, in a sentence"


def test_another_sweeper_is_refused() -> None:
    with pytest.raises(UserError, match="basic sweeper"):
        expand(["hydra.sweeper._target_=my.Sweeper", "seed=1,2"])


def test_the_choices_of_groups_are_told_from_keys() -> None:
    typed = ["loss=square", "seed=2", "model/size=micro", "optimizer.lr=0.1", "name=x", "experiment=quickstart"]
    assert group_choices(typed) == ["loss=square", "model/size=micro", "experiment=quickstart"]


def test_composing_leaves_no_trace_in_hydra() -> None:
    before = GlobalHydra.instance().hydra
    compose_plain(["seed=2"])
    with pytest.raises(UserError):
        compose_plain(["sede=2"])
    assert GlobalHydra.instance().hydra is before


@pytest.mark.parametrize(
    "name", ["conf", "my conf", "it's mine", "a,b", "a=b", "a[1]", "a{b}", "a$b", "a#b", "模型", 'quo"ted', "100%"]
)
def test_a_folder_of_ones_own_joins_whatever_it_is_called(name: str, own_conf) -> None:
    folder = own_conf({"loss/mine.yaml": SQUARE}, name)
    assert compose_plain(["loss=mine"], folder)["loss"]["k"] == 1.0


def test_a_folder_of_ones_own_may_be_relative(own_conf, monkeypatch) -> None:
    folder = own_conf({"loss/mine.yaml": SQUARE})
    monkeypatch.chdir(folder.parent)
    assert compose_plain(["loss=mine"], Path(os.path.relpath(folder)))["loss"]["m"] == 1.0
    assert expand(["loss=mine,square"], Path(folder.name)) == [["loss=mine"], ["loss=square"]]


def test_a_choice_misspelt_in_ones_own_folder_is_found_there(own_conf) -> None:
    folder = own_conf({"loss/my_very_own.yaml": SQUARE})
    with pytest.raises(UserError, match="did you mean 'my_very_own'"):
        compose_plain(["loss=my_very_onw"], folder)


@pytest.mark.parametrize("path", ["train.yaml", "loss/square.yaml", "model/size/nano.yaml"])
def test_a_file_with_a_shipped_name_is_refused(path: str, own_conf) -> None:
    folder = own_conf({path: SQUARE, "loss/fine.yaml": SQUARE})
    with pytest.raises(UserError) as caught:
        check_config_dir(folder)
    assert str(folder / path) in str(caught.value)
    assert "rename it" in str(caught.value)
    with pytest.raises(UserError, match="rename it"):
        compose_plain(["loss=fine"], folder)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("")], ids=["missing", "a file"])
def test_what_is_no_folder_is_refused(make, tmp_path) -> None:
    make(tmp_path / "conf")
    with pytest.raises(UserError, match=r"--config-dir .*conf is not a folder"):
        check_config_dir(tmp_path / "conf")


def test_the_shipped_configuration_is_found() -> None:
    assert (conf_dir() / "train.yaml").is_file()
    assert (conf_dir() / "loss").is_dir()


def test_a_broken_installation_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("losslab.__file__", str(tmp_path / "src" / "losslab" / "__init__.py"))
    with pytest.raises(UserError, match="install the package again"):
        conf_dir()


def test_the_wheels_own_configuration_comes_first(tmp_path, monkeypatch) -> None:
    for folder in (tmp_path / "site" / "losslab" / "conf", tmp_path / "conf"):
        folder.mkdir(parents=True)
        (folder / "train.yaml").touch()
    monkeypatch.setattr("losslab.__file__", str(tmp_path / "site" / "losslab" / "__init__.py"))
    assert conf_dir() == tmp_path / "site" / "losslab" / "conf"
