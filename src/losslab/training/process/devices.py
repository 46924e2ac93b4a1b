"""Devices of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from losslab.errors import UserError
from losslab.training.compute import first_device
from losslab.training.output.messages import quiet_lightning
from losslab.training.trainer import make_trainer

_MOST_RANKS_PER_CORE = 8
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def uses_gpu(settings: dict[str, Any]) -> bool:
    """Whether these trainer settings compute on CUDA devices here."""
    accelerator = settings["accelerator"]
    return accelerator in ("gpu", "cuda", "auto") and torch.cuda.device_count() > 0


def gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(i) for i in range(count)]


def check_devices(config: dict[str, Any]) -> None:
    """Refuse more devices than there are, nodes that only an outer launcher can start, and whatever else Lightning's
    Trainer refuses. Starts nothing.

    Raises:
        UserError: naming how many there are.
    """
    settings = config["trainer"]
    devices = settings["devices"]
    if settings["num_nodes"] > 1 and "RANK" not in os.environ:
        raise UserError("trainer.num_nodes above 1 needs an outer torchrun or srun on every node")
    if settings["accelerator"] in ("gpu", "cuda"):
        first_device(settings["accelerator"])
    if uses_gpu(settings) and devices > len(gpus()):
        raise UserError(f"trainer.devices={devices} is more than the {len(gpus())} GPU(s) of this machine")
    most = _MOST_RANKS_PER_CORE * cores()
    if settings["accelerator"] == "cpu" and devices > most:
        raise UserError(f"trainer.devices={devices} is more processes than {cores()} core(s) can serve: at most {most}")
    with quiet_lightning():
        make_trainer(config, Path(config["output_dir"]))
