"""Evaluation computes where and as a Trainer would, without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from losslab.config.check import _PRECISIONS
from losslab.contracts import Batch
from losslab.errors import UserError
from losslab.training.compute import first_device, input_converter, precision_context, set_determinism
from losslab.training.output.messages import quiet_lightning
from losslab.training.trainer import make_trainer


def trainer(folder: Path, **changes: Any) -> Any:
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "precision": "32-true",
        "deterministic": False,
        "max_steps": 1,
        "val_check_interval": 1,
        "accumulate_grad_batches": 1,
        "log_every_n_steps": 1,
        "profiler": None,
        "detect_anomaly": False,
    }
    with quiet_lightning():
        return make_trainer({"trainer": settings | changes}, folder)


def state() -> tuple[Any, ...]:
    """Settings that decide the precision of a forward pass."""
    product = torch.ones(2, 2, dtype=torch.get_default_dtype()) @ torch.ones(2, 2, dtype=torch.get_default_dtype())
    return torch.get_default_dtype(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), product.dtype


@pytest.mark.parametrize("precision", _PRECISIONS)
@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_precision_and_device_are_those_of_a_trainer(tmp_path: Path, precision: str, accelerator: str) -> None:
    if accelerator == "auto" and (torch.cuda.is_available() or MPSAccelerator.is_available()):
        pytest.skip("the products below are the CPU's")
    made = trainer(tmp_path, precision=precision, accelerator=accelerator)
    device = first_device(accelerator)
    assert device == made.strategy.root_device
    before = state()
    with made.precision_plugin.val_step_context():
        expected = state()
    with precision_context(precision, device)():
        assert state() == expected
    assert state() == before
    assert (expected != before) == (precision != "32-true")


@pytest.mark.parametrize(("accelerator", "kind"), [("gpu", "cuda"), ("cuda", "cuda"), ("auto", "cuda"), ("cpu", "cpu")])
def test_the_first_of_several_gpus_is_taken(accelerator: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    monkeypatch.setattr(MPSAccelerator, "is_available", lambda: False)
    assert first_device(accelerator) == (torch.device("cuda", 0) if kind == "cuda" else torch.device("cpu"))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: False)
    monkeypatch.setattr(MPSAccelerator, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch finds no GPU here"):
        first_device("gpu")
    with pytest.raises(UserError, match=r"accelerator cannot be 'cdua': did you mean 'cuda'"):
        first_device("cdua")


def test_determinism_is_what_a_trainer_sets(tmp_path: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        for wanted in (True, False):
            set_determinism(not wanted)
            trainer(tmp_path, deterministic=wanted)
            expected = torch.are_deterministic_algorithms_enabled()
            set_determinism(not wanted)
            set_determinism(wanted)
            assert torch.are_deterministic_algorithms_enabled() == expected == wanted
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "16-true", "64-true", "32-true"])
def test_a_precision_casts_the_inputs_of_a_batch_and_nothing_else(precision: str, tmp_path: Path) -> None:
    inputs = {"frames": torch.ones(2, 3), "tokens": torch.ones(2, dtype=torch.int64)}
    batch = Batch(inputs, torch.tensor([[257.0], [1.0]]), torch.tensor([0.3, 1.0]), {"bytes": torch.tensor([259.0, 0])})
    expected = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64, "32": torch.float32}
    dtype = torch.float32 if precision.endswith("mixed") else expected[precision.partition("-")[0]]
    cpu = torch.device("cpu")
    plugin = trainer(tmp_path, precision=precision).precision_plugin
    for cast in (input_converter(precision, cpu), plugin.convert_input):
        found = cast(batch)
        assert (found.inputs["frames"].dtype, found.inputs["tokens"].dtype) == (dtype, torch.int64)
        kept = [found.target, found.weight, found.extras["bytes"]]
        assert [value.tolist() for value in kept] == [[[257.0], [1.0]], batch.weight.tolist(), [259.0, 0.0]]
        assert {value.dtype for value in kept} == {torch.float32}
