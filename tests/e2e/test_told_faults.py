"""Faults of a run that trains make one sentence each, and stand in the record."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from losslab.commands.resume import resume
from losslab.records import read
from losslab.run_folder import RunFolder
from losslab.training import session_notes
from losslab.training.output import provenance
from runs import find_runs, only_run, stopping_after

RAISING = """
import torch
from losslab.losses.base import Loss

class Raising(Loss):
    def position_loss(self, logits, target):
        raise {error}
"""


@pytest.mark.parametrize(
    "error",
    [
        'torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")',
        'RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can\'t allocate memory: 9 bytes")',
        "MemoryError()",
    ],
)
def test_out_of_memory_says_what_to_lower(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str], error: str
) -> None:
    module = f"raising_{abs(hash(error))}"
    Path(f"{module}.py").write_text(RAISING.format(error=error))
    assert run_tiny("loss=brier", f"loss._target_={module}.Raising") == 1
    _, record = only_run(Path("outputs/runs"))
    assert record.status == "failed"
    assert "trainer.micro_batch_size" in str(record.error)
    message = capsys.readouterr().err
    assert "trainer.micro_batch_size" in message and "Traceback" not in message


def test_bf16_true_is_warned_of_once_and_recorded(
    run_tiny: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny("trainer.precision=bf16-true", "loss=square") == 0
    told = capsys.readouterr().err
    assert told.count("bf16-true") == 1 and "bf16-mixed" in told
    folder, record = only_run(Path("outputs/runs"))
    assert record.hardware["precision"] == "bf16-true"
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["network.backbone.embedding.weight"].dtype is torch.bfloat16
    assert state["network.loss.prediction_scale"].dtype is torch.float32
    assert run_tiny("trainer.precision=bf16-mixed") == 0
    assert "note" not in capsys.readouterr().err


EXPLODING = """
import torch

class Exploding(torch.optim.AdamW):
    steps = 0

    def step(self, closure=None):
        loss = super().step(closure)
        self.steps += 1
        if self.steps == 6:
            self.param_groups[0]["params"][0].data.view(-1)[0] = float("inf")
        return loss
"""


@pytest.mark.parametrize("every", [1, 100])
def test_weights_that_a_step_made_infinite_are_never_kept(run_tiny: Callable[..., int], every: int) -> None:
    Path("exploding.py").write_text(EXPLODING)
    assert run_tiny("optimizer._target_=exploding.Exploding", f"checkpoints.every_n_steps={every}") == 0
    folder, record = only_run(Path("outputs/runs"))
    assert (record.status, record.step) == ("diverged", 5 if every == 1 else 4)
    assert "CrossEntropy" in str(record.error)
    for path in (folder / "checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(value.isfinite().all()) for value in state.values())


def test_flags_that_decide_the_arithmetic_are_recorded(run_tiny: Callable[..., int]) -> None:
    assert run_tiny("trainer.deterministic=true") == 0
    _, record = only_run(Path("outputs/runs"))
    torch.use_deterministic_algorithms(False)
    assert record.hardware["deterministic"] is True
    assert record.hardware["float32_matmul_precision"] == torch.get_float32_matmul_precision()
    assert record.hardware["cudnn_allow_tf32"] == torch.backends.cudnn.allow_tf32


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_what_is_not_committed_changes_the_record(workplace: Path) -> None:
    def note() -> dict[str, Any]:
        return provenance.provenance(RunFolder(Path("outputs/runs/x")))

    assert note()["commit"] is None and note()["diff"] is None
    git("init", "-q")
    Path("my_losses.py").write_text("a = 1\n")
    git("add", "my_losses.py")
    git("commit", "-qm", "begin")
    clean = note()
    assert len(clean["commit"]) == 40 and not clean["dirty"] and clean["diff"] is None
    Path("outputs/runs").mkdir(parents=True)
    Path("outputs/runs/config.yaml").write_text("written: by a run\n")
    assert note() == clean
    Path("my_losses.py").write_text("a = 2\n")
    edited = note()
    assert edited["dirty"] and edited["diff"] and edited["commit"] == clean["commit"]
    Path("my_losses.py").write_text("a = 3\n")
    assert note()["diff"] != edited["diff"]
    Path("my_losses.py").write_text("a = 1\n")
    Path("mine.yaml").write_text("b: 1\n")
    new = note()
    assert new["dirty"] and new["diff"]
    Path("mine.yaml").write_text("b: 2\n")
    assert note()["diff"] != new["diff"]


def test_a_run_that_goes_on_with_other_code_says_so_and_keeps_what_it_began_with(
    run_tiny: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with stopping_after():
        assert run_tiny() == 1
    (folder,) = find_runs(Path("outputs/runs"))
    before = read(folder).hashes["code"]
    monkeypatch.setattr(session_notes, "hash_code", lambda foreign: {"code": "other"})
    capsys.readouterr()
    assert resume(folder, [], []) == 0
    assert "has changed since this run began" in capsys.readouterr().err
    record = read(folder)
    assert record.hashes["code"] == "other"
    assert [(change["step"], change["code"]) for change in record.provenance["changes"]] == [(4, before)]
