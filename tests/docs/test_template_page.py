"""docs/from_the_template.md: every command composes, or is one that there is; what is typed there is answered."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from losslab.cli import app
from losslab.commands.command_line import CommandLine, parse
from losslab.commands.new import new
from losslab.config.binding import bind_components
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.jobs import job_overrides, open_multirun, single_job, study_spaces
from losslab.errors import UserError
from losslab.sweeps.settings import SearchSettings
from runs import unimported

PAGE = (Path(__file__).parents[2] / "docs/from_the_template.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| feature ")
]
QUOTED = re.compile(r"`([^`]+)`")
HERE = list(dict.fromkeys(words for row in ROWS for words in QUOTED.findall(row[2]) if words.startswith("losslab ")))
THERE = [words for row in ROWS for words in QUOTED.findall(row[1]) if re.match(r"(-m )?['+\w./]+=", words)]
COMMANDS: Any = typer.main.get_command(app)
UNANSWERED = "has accelerator, "
"""Words of an answer that only lists all keys of the trainer."""


def compose(line: CommandLine) -> int:
    """The number of runs that a command composes. Raises UserError for a mistake in any."""
    jobs = [single_job(line.overrides)]
    if line.multirun:
        opened = open_multirun(line.overrides, line.config_dir)
        if opened.search is not None:
            SearchSettings.of(opened.search)
            assert all(space.samples() for space in study_spaces(opened))
        jobs = job_overrides(opened) if opened.search is None else study_spaces(opened)[0].samples()
    for job in jobs:
        bind_components(check_run(compose_job(list(job), line.config_dir)[0]))
    return len(jobs)


def check_command(words: list[str]) -> None:
    """Let the command line read words without running them. Raises what it raises for a mistake in them."""
    name, *rest = words
    if name.startswith("--"):
        assert any(name in option.opts for option in COMMANDS.params)
    else:
        COMMANDS.commands[name].make_context(name, rest)


@pytest.fixture(scope="module", autouse=True)
def _project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A project of one's own as the current folder, with a further folder of yaml files."""
    folder = tmp_path_factory.mktemp("template") / "study"
    with pytest.MonkeyPatch.context() as patch, unimported("study"):
        new(folder)
        (folder / "my_conf").mkdir()
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield


def test_every_feature_has_an_answer() -> None:
    assert len(ROWS) > 60 and all(len(row) == 3 and row[0] and row[2] for row in ROWS)
    assert len(HERE) > 60 and len(THERE) > 40


@pytest.mark.parametrize("command", HERE)
def test_what_is_typed_here_is_right(command: str) -> None:
    _, name, *words = shlex.split(command)
    if name == "train":
        line = parse(words)
        assert (compose(line) > 1) == line.multirun
    else:
        check_command([name, *words])


@pytest.mark.parametrize("words", THERE)
def test_what_is_typed_there_is_answered(words: str) -> None:
    try:
        answer = str(compose(parse(shlex.split(words))))
    except UserError as error:
        answer = str(error)
    assert UNANSWERED not in answer
