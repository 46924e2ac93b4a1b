"""Make a run's parts from its configuration: for training, for evaluation, and for `losslab.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from losslab.config.components import build
from losslab.data.module import TextDataModule
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.regularizers import regularize
from losslab.records import CACHE
from losslab.training.network import Network
from losslab.training.optimizers import make_optimizer
from losslab.training.random import generator, global_stream
from losslab.training.schedules import make_scheduler


def build_part(config: dict[str, Any], name: str, **late: Any) -> Any:
    """The component `name`, built under the global stream of its name. `late` are arguments that only now are known."""
    with global_stream(config["seed"], name):
        return build(config[name], name, **late)


def check_components(config: dict[str, Any]) -> None:
    """Construct everything once, on no device and without data, so that bad values are refused before any is read."""
    with global_stream(config["seed"], "check"):
        _check(config)


def _check(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        backbone = build(config["model"], "model", vocab_size=1)
    loss = build_loss(config)
    if loss.reads_teacher and loss.teacher is None:
        raise UserError(f"loss.teacher is missing: {type(loss).__name__} learns from a run, name its folder")
    task = build(config["task"], "task")
    if loss.target_kind is not task.target_kind:
        raise UserError(f"loss wants {loss.target_kind.value} as targets, and the task has {task.target_kind.value}")
    _check_optimizer(config, backbone)


def _check_optimizer(config: dict[str, Any], backbone: torch.nn.Module) -> None:
    """Make optimizer and scheduler once, for the parameters that this model has; those of a loss come with the data."""
    parts = torch.nn.ModuleDict({"backbone": backbone})
    with torch.device("meta"):
        parts["projection"] = backbone.output_projection(1, torch.Generator())  # type: ignore[operator]
    optimizer = make_optimizer(config["optimizer"], parts)
    make_scheduler(config["scheduler"], optimizer, max_steps=config["trainer"]["max_steps"])
    fused = any(group.get("fused") for group in optimizer.param_groups)
    if config["trainer"]["precision"] == "16-mixed" and fused:
        # A fused optimizer unscales inside its step: norms and clipping would see gradients of the scaled loss.
        raise UserError("trainer.precision=16-mixed does not go with optimizer.fused=true; leave one out")


def build_loss(config: dict[str, Any]) -> Loss:
    """With the regularizers that joined it. Raises UserError for settings that a loss refuses."""
    loss = build(config["loss"], "loss")
    if not isinstance(loss, Loss):
        raise UserError(f"loss: {type(loss).__name__} must derive from losslab.losses.base.Loss")
    return regularize(loss, config["regularizers"])


def build_network(config: dict[str, Any], num_outputs: int, class_counts: Tensor | None = None) -> Network:
    """Every part on the CPU and from streams of its own, so that no part shifts what another draws.

    Args:
        num_outputs: V, of the tokenizer in use.
        class_counts: [V], how often each class is a target in train; None where a checkpoint is about to say.
    """
    seed = config["seed"]
    with torch.device("cpu"):
        init = generator(seed, "backbone_init")
        backbone = build_part(config, "model", vocab_size=num_outputs, generator=init)
        with global_stream(seed, "loss"):
            loss = build_loss(config)
        return Network(
            backbone=backbone,
            loss=loss,
            task=build_part(config, "task"),
            num_outputs=num_outputs,
            head_init=generator(seed, "head_init"),
            class_counts=class_counts,
        )


def hash_inputs(config: dict[str, Any], data: TextDataModule | None = None) -> dict[str, str]:
    """Dotted key of each input of the data → SHA-256 of its content."""
    with global_stream(config["seed"], "hashes"):
        hashes: dict[str, str] = (data or build_part(config, "data")).input_hashes()
        return hashes


def open_data(folder: Path, config: dict[str, Any]) -> TextDataModule:
    """The run's text, tokenised; in the cache beside the sweeps, or, where a run was moved away from it, in its own."""
    shared = folder.absolute().parent.parent / CACHE
    data: TextDataModule = build_part(config, "data")
    with global_stream(config["seed"], "preparation"):
        data.prepare(shared if shared.is_dir() else folder / CACHE)
    return data
