"""Make a run's parts from its configuration: for training, for evaluation, and for `losslab.load`."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from losslab.config.binding import import_target
from losslab.config.components import build
from losslab.contracts import DataInfo, DataModule, Task, projection_of
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.regularizers import regularize
from losslab.models.projection import OutputProjection
from losslab.run_folder import RunFolder
from losslab.training.network import Network
from losslab.training.optimizers import make_optimizer
from losslab.training.random import derive_seed, generator, global_stream
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
        backbone = build_backbone(config, DataInfo(splits={}, mean_positions=1, vocab_size=1))
    loss = build_loss(config)
    if loss.reads_teacher and loss.teacher is None:
        raise UserError(f"loss.teacher is missing: {type(loss).__name__} learns from a run, name its folder")
    task = build_task(config)
    check_kinds(loss, task)
    build_data(config).check_task(task)
    _check_optimizer(config, backbone)


def check_kinds(loss: Loss, task: Task) -> None:
    """Refuse a loss whose targets a task does not have. Raises UserError naming both."""
    name = type(task).__name__
    if loss.target_kind not in task.accepts:
        kinds = " or ".join(sorted(kind.value for kind in task.accepts))
        raise UserError(f"loss needs {loss.target_kind.value} as targets, and the task has {kinds}")
    if lacking := sorted(loss.needs.keys() - task.provides):
        raise UserError(
            f"loss={type(loss).__name__} reads {lacking[0]!r} of each position, which task={name} does not give"
        )


def _check_optimizer(config: dict[str, Any], backbone: torch.nn.Module) -> None:
    """Make optimizer and scheduler once, for the parameters that this model has; those of a loss come with the data."""
    parts = torch.nn.ModuleDict({"backbone": backbone})
    with torch.device("meta"):
        parts["projection"] = projection_of(backbone, 1, torch.Generator(), OutputProjection)  # type: ignore[assignment]
    optimizer = make_optimizer(config["optimizer"], parts)
    make_scheduler(config["scheduler"], optimizer, max_steps=config["trainer"]["max_steps"])
    fused = any(group.get("fused") for group in optimizer.param_groups)
    if config["trainer"]["precision"] == "16-mixed" and fused:
        # A fused optimizer unscales inside its step: norms and clipping would see gradients of the scaled loss.
        raise UserError("trainer.precision=16-mixed does not go with optimizer.fused=true; leave one out")


def build_loss(config: dict[str, Any]) -> Loss:
    """Build a loss with the regularizers that joined it. Raises UserError for settings that a loss refuses."""
    loss = build(config["loss"], "loss")
    if not isinstance(loss, Loss):
        raise UserError(f"loss: {type(loss).__name__} must derive from losslab.losses.base.Loss")
    return regularize(loss, config["regularizers"])


def build_task(config: dict[str, Any]) -> Task:
    """Raises UserError for a class that is no task."""
    task = build_part(config, "task")
    if not isinstance(task, Task):
        raise UserError(f"task: {type(task).__name__} must derive from losslab.contracts.Task")
    return task


def build_data(config: dict[str, Any]) -> DataModule:
    """The data module, not prepared. Raises UserError for a class that is none."""
    data = build_part(config, "data")
    if not isinstance(data, DataModule):
        raise UserError(f"data: {type(data).__name__} must derive from losslab.contracts.DataModule")
    if not hasattr(data, "batch_size"):
        raise UserError(
            f"data: {type(data).__name__} has no batch_size: its __init__ calls super().__init__(batch_size=…, "
            "val_batch_size=…)"
        )
    data.memory = Path(config["output_dir"]) / CACHE
    return data


def build_backbone(config: dict[str, Any], info: DataInfo, init: torch.Generator | None = None) -> torch.nn.Module:
    """The model, with what its constructor takes of `vocab_size` and `generator`.

    Raises:
        UserError: for a model without a width, or that needs a vocabulary where the data has none.
    """
    target = import_target(config["model"]["_target_"], "model")
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    late: dict[str, Any] = {"vocab_size": info.vocab_size} | ({} if init is None else {"generator": init})
    late = {name: value for name, value in late.items() if takes_any or name in parameters}
    if late.get("vocab_size", 0) is None:
        raise UserError(f"model: {target.__name__} needs vocab_size, and this data has no vocabulary")
    backbone = build_part(config, "model", **late)
    if not isinstance(backbone, torch.nn.Module):
        raise UserError(f"model: {target.__name__} must derive from torch.nn.Module")
    if not isinstance(getattr(backbone, "width", None), int):
        raise UserError(
            f"model: {target.__name__} has no width: set self.width, the size D of the hidden states that it returns"
        )
    return backbone


def build_network(config: dict[str, Any], info: DataInfo) -> Network:
    """Every part on the CPU and from streams of its own, so that no part shifts what another draws.

    Args:
        info: what the data says of itself, or a checkpoint of the data.
    """
    seed = config["seed"]
    with torch.device("cpu"):
        backbone = build_backbone(config, info, generator(seed, "backbone_init"))
        with global_stream(seed, "loss"):
            loss = build_loss(config)
        return Network(
            backbone=backbone, loss=loss, task=build_task(config), info=info, head_init=generator(seed, "head_init")
        )


def hash_inputs(config: dict[str, Any], data: DataModule | None = None) -> dict[str, str]:
    """Dotted key of each input of the data → SHA-256 of its content."""
    with global_stream(config["seed"], "hashes"):
        hashes: dict[str, str] = (data or build_data(config)).content_hashes(build_task(config))
        return hashes


def open_data(run: RunFolder, config: dict[str, Any]) -> DataModule:
    """The run's data, prepared; in the cache beside the sweeps, or, where a run was moved away from it, in its own."""
    data, task = build_data(config), build_task(config)
    data.seed = derive_seed(config["seed"], "data_order")
    data.memory = run.shared_cache if run.shared_cache.is_dir() else run.own_cache
    with global_stream(config["seed"], "preparation"):
        data.info = data.prepare(data.memory, task)
    for split in data.splits[1:]:
        if split not in data.info.splits:
            raise UserError(
                f"data: {type(data).__name__}.prepare gives nothing for its split {split}: add it to DataInfo.splits"
            )
    return data
