"""Commands on finished runs fail without harm, and work again afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from injection import Operation, inject
from run_state import damage, digest

from losslab.cli import main
from losslab.records import read
from losslab.training.output.checkpoints import read_checkpoint
from runs import TINY, find_runs

WHOLE = [*TINY, "trainer.max_steps=4", "trainer.val_check_interval=2", "checkpoints.keep=2"]


@pytest.fixture
def run(run_tiny: Callable[..., int]) -> Path:
    assert run_tiny(*WHOLE[len(TINY) :]) == 0
    (folder,) = find_runs(Path("outputs/runs"))
    return folder.absolute()


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["losslab", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def operations_of(folder: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> list[Operation]:
    with inject(folder) as faults:
        assert command(*arguments, monkeypatch=monkeypatch) == 0
    return list(faults.operations)


@pytest.mark.parametrize("mode", ["EIO", "partial"])
@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_a_failed_evaluation_or_export_leaves_what_was_there(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, mode: str
) -> None:
    operations = operations_of(run, name, str(run), monkeypatch=monkeypatch)
    assert len(operations) >= 4
    written = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for operation in operations:
        capsys.readouterr()
        with inject(run, operation, mode):
            code = command(name, str(run), monkeypatch=monkeypatch)
        told = capsys.readouterr().err
        assert (code, told.count("\n"), "Traceback" in told) in [(1, 1, False), (0, 0, False)], operation
        for path, content in written.items():
            now = path.read_bytes()
            assert now == content or (path.name == "evaluations.jsonl" and now.startswith(content)), (operation, path)
    assert command(name, str(run), monkeypatch=monkeypatch) == 0
    if name == "evaluate":
        lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
        assert all(line["metrics"] == lines[0]["metrics"] for line in lines)


@pytest.mark.parametrize("mode", ["EIO", "ENOSPC", "partial"])
def test_a_failed_clean_leaves_a_checkpoint_that_loads(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    weights = read_checkpoint(run / "checkpoints/best.ckpt")["state_dict"]
    for number in range(1, 9):
        for kind in ("open", "write", "fsync", "rename"):
            with inject(run, Operation(kind, "best.ckpt", number), mode):
                command("clean", str(run), monkeypatch=monkeypatch)
            found = read_checkpoint(run / "checkpoints/best.ckpt")["state_dict"]
            assert all(weights[name].equal(found[name]) for name in weights)
    assert command("clean", str(run), monkeypatch=monkeypatch) == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.ckpt"]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["EIO", "partial"])
def test_checkpoints_that_are_kept_survive_a_failed_write(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    options = WHOLE[len(TINY) :]
    assert run_tiny(*options, "name=whole") == 0
    (whole,) = find_runs(Path("outputs/whole"))
    outputs = Path("outputs").absolute()
    for name in ("link", "rename"):
        with inject(outputs / name, Operation(name, "step-0000000004.ckpt", 1), mode):
            run_tiny(*options, f"name={name}")
        (run,) = find_runs(Path("outputs") / name)
        assert not damage(run, since=0)
        assert run_tiny(*options, f"name={name}") == 0
        assert read(run).metrics == read(whole).metrics
        assert digest(run / "checkpoints").keys() == digest(whole / "checkpoints").keys()
