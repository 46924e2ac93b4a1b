"""Threads wait for each other asleep, unless somebody decided otherwise."""

from __future__ import annotations

import os

import pytest

from losslab.cli import main
from losslab.threads import WAITING, waiting


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.setenv(name, "")  # so that it is put back, whatever a test sets
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("unset")
def test_every_command_lets_its_threads_wait_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["losslab", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert {name: os.environ[name] for name in WAITING} == WAITING


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("name", WAITING)
def test_whoever_set_one_of_the_variables_has_decided(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert waiting() == WAITING
    monkeypatch.setenv(name, "7")
    assert waiting() == {}
