"""`losslab new`: the project that it writes passes its own tests and composes, and bad names are a sentence."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from losslab.commands.new import new, package_name
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.jobs import job_overrides, open_multirun
from losslab.errors import UserError
from runs import unimported

PAGE = Path(__file__).parents[2] / "docs/own_project.md"
LAYOUT = """
.gitignore README.md pyproject.toml conf/experiment/main.yaml conf/loss/taylor.yaml conf/model/gru.yaml
my_project/__init__.py my_project/losses.py my_project/models.py tests/test_losses.py tests/test_parts.py
""".split()


@pytest.fixture
def project(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new project, as the current folder."""
    with unimported("my_project"):
        assert new(Path("my-project")) == 0
        monkeypatch.chdir("my-project")
        monkeypatch.setattr(sys, "path", [*sys.path, str(workplace / "my-project")])
        yield workplace / "my-project"


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def functions(path: Path) -> dict[str, Callable[..., None]]:
    """The tests of a file, by name."""
    namespace: dict[str, Any] = {"__file__": str(path), "__name__": path.stem}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), namespace)
    return {name: value for name, value in namespace.items() if name.startswith("test_")}


def test_the_layout_is_that_of_the_page(project: Path) -> None:
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert files == set(LAYOUT)
    (tree,) = (block for block in blocks(PAGE) if block.startswith("my_project/"))
    named = {line.split()[0] for line in tree.splitlines()}
    assert {Path(name).name for name in files} == {Path(name).name for name in named if not name.endswith("/")}


def test_its_own_tests_pass(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslab.conformance.kit.FURTHER", {})  # further processes: tests/conformance
    parts, values = (functions(project / f"tests/test_{name}.py") for name in ("parts", "losses"))
    parts["test_the_loss_passes_the_kit"]("taylor")
    parts["test_the_model_passes_the_kit"]("gru")
    (marks,) = (mark for mark in values["test_the_series"].pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    for order, value in marks.args[1]:
        values["test_the_series"](order, value)


def test_the_commands_of_its_readme_are_those_of_the_page_and_compose(project: Path) -> None:
    (commands,) = blocks(project / "README.md")
    assert f"cd my_project\n{commands}" in blocks(PAGE)
    pytest_, train, compare = (shlex.split(line) for line in commands.splitlines())
    assert pytest_ == ["pytest"] and compare == ["losslab", "compare", "outputs/main"]
    assert train[:4] == ["losslab", "train", "--config-dir", "conf"]
    jobs = job_overrides(open_multirun(train[4:], Path("conf")))
    configs = [check_run(compose_job(job, Path("conf"))[0]) for job in jobs]
    assert [(config["loss"]["_target_"].rpartition(".")[2], config["seed"]) for config in configs] == [
        (loss, seed) for loss in ("CrossEntropy", "Taylor") for seed in (1, 2, 3)
    ]
    assert {config["model"]["_target_"] for config in configs} == {"my_project.models.GRU"}


def test_its_pyproject_names_package_and_tests(project: Path) -> None:
    read = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    assert read["project"]["name"] == "my-project" and "losslab" in read["project"]["dependencies"]
    assert read["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["my_project"]
    assert (project / read["tool"]["pytest"]["ini_options"]["testpaths"][0]).is_dir()


def test_a_folder_with_anything_in_it_is_left_alone(workplace: Path) -> None:
    with pytest.raises(UserError, match=r"book\.txt is a file: name a folder"):
        new(Path("book.txt"))
    Path("full").mkdir()
    Path("full/notes").touch()
    with pytest.raises(UserError, match="full is not empty: name a folder that there is not yet, or an empty one"):
        new(Path("full"))
    assert [path.name for path in Path("full").iterdir()] == ["notes"]


def test_an_empty_folder_is_filled(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("study_7").mkdir()
    monkeypatch.chdir("study_7")
    assert new(Path()) == 0
    assert Path("study_7/losses.py").is_file()


@pytest.mark.parametrize(
    ("name", "package"), [("my_project", "my_project"), ("my-project", "my_project"), ("Loss study.2", "Loss_study_2")]
)
def test_a_package_is_named_after_the_folder(name: str, package: str) -> None:
    assert package_name(name) == package


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("2025", "'2025' gives the project's package no name: begin with a letter"),
        ("été", "gives the project's package no name"),
        ("a+b", "gives the project's package no name"),
        ("-", "gives the project's package no name"),
        ("class", "class is a word of Python's, and no name for its package"),
        ("conf", "conf is a folder of the project, and no name for its package"),
        ("torch", "a module named torch is installed, and would be imported instead"),
        ("json", "a module named json is installed"),
    ],
)
def test_a_name_that_cannot_be_imported_is_a_sentence_and_nothing_is_written(
    name: str, told: str, workplace: Path
) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        new(Path("sub") / name)
    assert not Path("sub").exists()
