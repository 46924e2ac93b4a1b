"""Threads, device and precision of a process, where it needs no Trainer."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, MixedPrecision, Precision

from losslab.config.nearest import nearest
from losslab.contracts import Batch
from losslab.errors import UserError
from losslab.records import Record

_DEFAULT_THREADS = torch.get_num_threads()
_KINDS = {"auto": ("mps", "cuda", "cpu"), "gpu": ("mps", "cuda"), "cuda": ("cuda",), "mps": ("mps",), "cpu": ("cpu",)}
"""trainer.accelerator → the kinds of device that it may mean, in the order in which Lightning looks for them."""


def set_threads(config: dict[str, Any], record: Record) -> None:
    """CPU results depend on the number of threads: a continued run uses the one it began with."""
    torch.set_num_threads(config["trainer"]["threads"] or record.hardware.get("threads") or _DEFAULT_THREADS)


def set_determinism(deterministic: bool) -> None:
    """Set what a Trainer sets for trainer.deterministic."""
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        torch.backends.cudnn.benchmark = False
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS refuses


def first_device(accelerator: str, *, named_by: str = "trainer.accelerator") -> torch.device:
    """The first device that trainer.accelerator, or an option like it, names: the one of a Trainer with devices=1.

    Raises:
        UserError: for another name, and where there is no such device.
    """
    if accelerator not in _KINDS:
        raise UserError(f"{named_by} cannot be {accelerator!r}: {nearest(accelerator, _KINDS)}")
    available = {"cpu": True, "cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()}
    kind = next((kind for kind in _KINDS[accelerator] if available[kind]), None)
    if kind is None:
        way_out = "trainer=cpu computes without one (with trainer=ddp: trainer.accelerator=cpu)"
        if named_by != "trainer.accelerator":
            way_out = f"{named_by} cpu computes without one"
        raise UserError(f"{named_by}={accelerator}: torch finds no GPU here; {way_out}")
    return torch.device(kind) if kind == "cpu" else torch.device(kind, 0)


def precision_context(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Make the context that Lightning puts around a validation step under trainer.precision: autocast, a default dtype,
    or none."""
    return _precision(precision, device).val_step_context


def input_converter(precision: str, device: torch.device) -> Callable[[Batch], Batch]:
    """Cast the inputs of a batch as Lightning does under trainer.precision; see `inputs_alone`."""
    return inputs_alone(_precision(precision, device))


def inputs_alone(plugin: Precision) -> Callable[[Batch], Batch]:
    """Cast the inputs of a batch as a precision plugin does, and nothing else of it: in bfloat16 a target of 257.0
    would be 256.0, and a weight of 0.3 another one."""
    cast = plugin.convert_input
    return lambda batch: batch._replace(inputs=cast(batch.inputs))


def _precision(precision: str, device: torch.device) -> Precision:
    if precision in ("bf16-true", "16-true"):
        return HalfPrecision(precision)  # type: ignore[arg-type]
    if precision == "64-true":
        return DoublePrecision()
    if precision in ("bf16-mixed", "16-mixed"):
        on_cpu = device.type == "cpu"  # where autocast has no float16
        return MixedPrecision("bf16-mixed" if on_cpu else precision, device.type)  # type: ignore[arg-type]
    return Precision()
