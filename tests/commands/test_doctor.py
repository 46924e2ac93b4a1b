"""losslab doctor: what it says of packages, devices, processes and disk, on a machine where some of it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import losslab
from losslab.commands import doctor as module
from losslab.commands.doctor import doctor, examine
from losslab.errors import UserError
from losslab.sweeps import server

REQUIREMENTS = ["torch>=2.11", "nothing_of_this_name", "absent[all]>=1; extra == 'hf'", 'numpy; extra == "dev"']


class Process:
    """A started process that answers, or ends without an answer."""

    def __init__(self, answer: str | None) -> None:
        self.answer, self.killed, self.closed = answer, False, False

    def poll(self, seconds: float) -> bool:
        return True

    def recv(self) -> str:
        if self.answer is None:
            raise EOFError
        return self.answer

    def kill(self) -> None:
        self.killed = True

    def join(self) -> None: ...

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], Process]:
    """Another list of requirements; and a server whose processes answer as a test says."""
    monkeypatch.setattr(module.metadata, "requires", lambda name: REQUIREMENTS)
    monkeypatch.setattr(server, "warm_up", lambda: None)

    def answering(answer: str | None) -> Process:
        process = Process(answer)
        monkeypatch.setattr(server, "follow", lambda target, name: (process, process))
        return process

    answering("ready")
    return answering


def test_findings_are_plain_values(tmp_path: Path) -> None:
    found = examine(tmp_path / "not" / "there")
    assert json.loads(json.dumps(found)) == found
    assert found["losslab"] == losslab.__version__ and found["threads"] == torch.get_num_threads()
    # The registry's build with CUDA is 2.13.0 to pip and 2.13.0+cu130 to itself.
    assert found["packages"] == {"torch": metadata.version("torch"), "nothing_of_this_name": None}
    assert torch.__version__.startswith(found["packages"]["torch"])
    assert found["optional"] == {"hf": {"absent": None}}, "what only developers need is left out"
    assert found["devices"][0]["name"] == "cpu" and found["devices"][0]["bf16"] is True
    assert found["processes"]["works"] is True
    assert found["disk"]["free_gib"] > 0 and found["disk"]["folder"].endswith("there")


def test_lines_name_the_extra_of_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert doctor(tmp_path, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "packages   torch 2." in printed and "nothing_of_this_name is missing" in printed
    assert "optional   hf: absent is missing; pip install 'losslab[hf]'" in printed
    assert "cpu: bfloat16 works, products " in printed
    assert f"processes  {server.METHOD} works, ready after " in printed
    assert doctor(tmp_path, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["optional"]["hf"] == {"absent": None}


def test_failures_are_said_and_end_nothing(
    machine: Callable[[str | None], Process], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process = machine(None)

    def refuse(*arguments: Any) -> float:
        raise RuntimeError("no such\n  type")

    monkeypatch.setattr(module, "_seconds", refuse)
    assert doctor(Path(), as_json=False) == 0
    printed = capsys.readouterr().out
    assert "cpu: no bfloat16 (no such type)" in printed
    assert f"{server.METHOD} fails: no answer within 120 seconds, or the process ended" in printed
    assert process.killed and process.closed

    def none(*arguments: Any, **options: Any) -> Any:
        raise UserError("no process for a run could be started (too many)")

    monkeypatch.setattr(server, "follow", none)
    assert examine(Path())["processes"]["error"] == "no process for a run could be started (too many)"
