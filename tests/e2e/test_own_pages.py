"""docs/own_model.md, own_data.md, own_task.md and own_project.md, walked through: their classes and commands."""

from __future__ import annotations

import json
import random
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from losslab.cli import app
from losslab.records import read
from runs import find_runs, unimported

DOCS = Path(__file__).parents[2] / "docs"
SMALL = ["trainer.max_steps=4", "trainer.val_check_interval=4", "scheduler.warmup_steps=1", "loggers=none"]
SMALL_MODEL = ["model.width=16", "model.num_layers=1"]
TEXT = ["data=text", "data.path=book.txt", "data.tokenizer=bytes", "data.batch_size=4"]


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [textwrap.dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def commands(page: str) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines()]


def place(block: str) -> str:
    """The file that a comment at its beginning names; empty where it goes on with the one before."""
    found = re.match(r"(?:# @package _global_\n)?# (\S+\.(?:py|yaml))\n", block)
    return found[1] if found else ""


def write(folder: Path, *pages: str) -> None:
    """The files of some pages."""
    for page in pages:
        contents: dict[str, str] = {}
        name = ""
        for block in [*blocks(page, "python"), *blocks(page, "yaml")]:
            name = place(block) or name
            contents[name] = contents.get(name, "") + "\n\n" + block
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content.lstrip("\n"), encoding="utf-8")


def run(command: str, *options: str) -> int:
    words = shlex.split(command)
    assert words.pop(0) == "losslab"
    return int(app([*words, *options], standalone_mode=False) or 0)


@pytest.fixture
def project(workplace: Path) -> Iterator[Path]:
    """A current folder whose modules no other test has imported, with tagged sentences."""
    rng = random.Random(0)
    (workplace / "tagged").mkdir()
    for split, size in (("train", 60), ("val", 30), ("test", 30)):
        rows = [[rng.randrange(50) for _ in range(rng.randint(2, 9))] for _ in range(size)]
        lines = [json.dumps({"words": words, "tags": [word % 3 for word in words]}) for words in rows]
        (workplace / f"tagged/{split}.jsonl").write_text("\n".join(lines))
    with unimported("my_models", "my_data", "my_tasks", "my_project"):
        yield workplace


@pytest.mark.parametrize("page", ["own_model.md", "own_data.md", "own_task.md"])
def test_each_class_is_short(page: str) -> None:
    text = "\n".join(blocks(page, "python"))
    classes = re.split(r"^(?=class )", text, flags=re.M)[1:]
    assert classes
    assert all(len(text.rstrip().splitlines()) <= 25 for text in classes)


def test_the_page_of_models(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "own_model.md")
    *checks, train, compare = commands("own_model.md")
    assert len(checks) == 4
    for command in checks:
        assert run(command, "data.context=12") == 0, capsys.readouterr().out
    assert run(train, *TEXT, *SMALL, *SMALL_MODEL) == 0
    assert run(compare) == 0
    runs = find_runs(project / "outputs/gru")
    assert sorted(read(path).provenance["choices"]["loss"] for path in runs) == ["cross_entropy", "square"]
    assert {read(path).provenance["choices"]["model"] for path in runs} == {"gru"}


def test_the_pages_of_data_and_tasks(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "own_data.md", "own_task.md")
    check_data, train, compare = commands("own_data.md")
    (check_task,) = commands("own_task.md")
    for command in (check_data, check_task):
        assert run(command) == 0, capsys.readouterr().out
    assert run(train, *SMALL, *SMALL_MODEL, "model.num_heads=2") == 0
    assert run(compare) == 0
    records = [read(path) for path in find_runs(project / "outputs/tagging")]
    assert len(records) == 2
    assert all(record.primary == "nll_scaled" and record.status == "completed" for record in records)


def test_the_page_of_projects(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("losslab new my_project") == 0
    (project / "tagged").rename(project / "my_project/tagged")
    project /= "my_project"
    monkeypatch.chdir(project)
    parts = {"data": "own_data.md", "tasks": "own_task.md"}
    write(project, *parts.values(), "own_project.md")
    for name in parts:
        (project / f"my_{name}.py").rename(project / f"my_project/{name}.py")
    for path in (project / "my_conf").rglob("*.yaml"):
        place = project / "conf" / path.relative_to(project / "my_conf")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(re.sub(r"my_(\w+)\.(?=[A-Z])", r"my_project.\1.", path.read_text()))
    namespace: dict[str, object] = {"__file__": str(project / "tests/test_tagging.py")}
    sys.path.append(str(project))
    exec((project / "tests/test_tagging.py").read_text(), namespace)
    for kind in ("model", "data", "task"):
        namespace["test_the_kit_passes"](kind)  # type: ignore[operator]
    train, status, compare = commands("own_project.md")
    assert run(train, *SMALL, *SMALL_MODEL) == 0
    assert run(status) == run(compare) == 0
    assert len(find_runs(project / "outputs/tagging")) == 4
