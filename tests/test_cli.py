"""Mistakes that the command line itself finds are one sentence, with what to do."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import losslab
from losslab.cli import app, main


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            ["compare", "outputs/a", "outputs/b", "outputs/c"],
            "losslab compare takes no further argument, such as 'outputs/b': runs are compared within one folder: move "
            "or copy the others into it, or train them under one name=",
        ),
        (["status", "a", "b"], "losslab status takes no further argument, such as 'b': the folder above them shows"),
        (["clean", "a", "b"], "losslab clean takes no further argument, such as 'b': the folder above them frees"),
        (["export", "a", "b"], "losslab export takes no further argument, such as 'b': losslab export --help lists"),
        (["compare"], "losslab compare needs FOLDER: losslab compare --help"),
        (["data", "inspect"], "losslab data inspect needs data=… [KEY=VALUE]…: losslab data inspect --help"),
        (["data", "inspect", "data=text", "--splitt", "val"], "no such option: --splitt"),
        (["bench"], "losslab bench needs loss=A,B,… [KEY=VALUE]…: losslab bench --help"),
        (["compare", "a", "--margin", "x"], "--margin must be a number"),
        (["compare", "a", "--metrik", "x"], "no such option: --metrik"),
        (["cmpare"], "no such command 'cmpare'"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_sentence(
    typed: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["losslab", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"losslab: {told}")


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["losslab", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and capsys.readouterr().out == f"{losslab.__version__}\n"


@pytest.mark.parametrize(("typed", "offered"), [("losslab da", "data"), ("losslab data in", "inspect")])
def test_the_shell_completes_commands_and_those_of_a_group(typed: str, offered: str) -> None:
    line = {"_LOSSLAB_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    found = CliRunner().invoke(app, prog_name="losslab", env=line)
    assert found.output.split() == [offered]
