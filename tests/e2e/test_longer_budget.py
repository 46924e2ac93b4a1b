"""`losslab resume KEY=VALUE`: what cannot be changed is refused, whatever became of the run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from losslab.commands.evaluate import evaluate
from losslab.commands.resume import resume
from losslab.commands.train import train
from losslab.errors import UserError
from losslab.records import read
from runs import find_runs, only_run, stopping_after

STATUSES = ("completed", "interrupted", "failed", "diverged", "running")
REFUSED = {
    "bogus.key=8": "there is no key 'bogus.key'",
    "data.batchsize=8": "there is no key 'data.batchsize': did you mean 'data.batch_size'?",
    "data.batch_size=8": "'data.batch_size' cannot be changed here, it belongs to the run",
    "seed=2": "'seed' cannot be changed here, it belongs to the run; what can be is checkpoints.",
    "continue_from=elsewhere": "'continue_from' cannot be changed here",
    "trainer.devices=three": "trainer.devices must be a whole number, not 'three'",
    "trainer.devices=3": "data.batch_size=4 is not devices",
    "trainer.max_steps": "'trainer.max_steps' cannot be read: write KEY=VALUE",
    "trainer.max_steps=many": "must be a whole number above 0, not 'many'",
    "trainer.max_steps=8": "whose budget is 8 steps: trainer.max_steps=8 is no longer than that",
    "trainer.max_tokens=128": "whose budget is 8 steps: trainer.max_tokens=128 is no longer than that",
}


def refusal(run: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        resume(run, [], list(overrides))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_overrides_are_checked_whatever_became_of_the_run(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny("scheduler=constant", "loggers=tensorboard") == 0
    run, record = only_run(Path("outputs/runs"))
    for status in STATUSES:
        record.status = status
        record.write(run)
        for override, said in REFUSED.items():
            assert said in refusal(run, override), (status, override)
    record.status = "completed"
    record.write(run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    capsys.readouterr()
    for overrides in ([], ["trainer.devices=2", "data.num_workers=1"]):
        assert resume(run, [], overrides) == 0
        assert capsys.readouterr().out == f"already completed: {run}\n"
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for override, said in {**REFUSED, "data.documents=none": "data.documents cannot be 'none'"}.items():
        if override.startswith(("bogus", "data.")):
            with pytest.raises(UserError, match=said.split(";")[0].replace("?", r"\?")):
                evaluate(run, checkpoint="best", split=None, overrides=[override], trust=[])


@pytest.mark.parametrize("asked", ["trainer.max_steps=12", "trainer.max_steps=1.2e1", "trainer.max_tokens=1530"])
def test_the_command_that_is_told_gives_the_longer_run(run_tiny: Callable[..., int], asked: str) -> None:
    assert run_tiny("scheduler=wsd", "+optimizer.amsgrad=true", "name=a sweep") == 0
    run, _ = only_run(Path("outputs/a sweep"))
    told = refusal(run, asked)
    assert told.startswith(f"{asked.partition('=')[0]} belongs to the run, whose budget is 8 steps; a longer one")
    command = shlex.split(told.partition("continues it: ")[2])
    assert command[:2] == ["losslab", "train"]
    assert train(command[2:]) == 0
    longer, record = next((path, read(path)) for path in find_runs(run.parent) if path != run)
    assert (record.status, record.step, record.max_steps) == ("completed", 12, 12)
    assert record.provenance["continued"]["step"] == 6
    assert (longer / "metrics.csv").read_text().splitlines()[1].startswith("1,")


def test_where_a_longer_run_cannot_continue_it_is_trained_from_the_start(run_tiny: Callable[..., int]) -> None:
    with stopping_after(4):
        assert run_tiny() == 1
    run, _ = only_run(Path("outputs/runs"))
    told = refusal(run, "trainer.max_steps=20")
    assert "whose budget is 8 steps, of which it has done 4; a longer one cannot continue it" in told
    assert "its learning rate (Cosine) is that of this run only up to step 3" in told
    command = shlex.split(told.partition("is trained from its first step: ")[2])
    assert command[:2] == ["losslab", "train"] and command[-1] == "trainer.max_steps=20"
    assert "trainer.max_steps=8" not in command and not any(part.startswith("continue_from") for part in command)
    assert "no longer than that; losslab resume" in refusal(run, "trainer.max_steps=6")
