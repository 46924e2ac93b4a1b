"""Make a run's parts from its configuration: for training, for evaluation, and for `losslab.load`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from losslab.choices import chosen
from losslab.config.binding import FROM_DATA, import_target
from losslab.config.components import build
from losslab.config.streams import seed_of
from losslab.contracts import (
    DataInfo,
    DataModule,
    Task,
    context_of,
    mixes_samples,
    projection_of,
)
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.r_drop import check_r_drop
from losslab.losses.regularizers import regularize
from losslab.models.projection import OutputProjection
from losslab.run_folder import CACHE, RunFolder
from losslab.training.callbacks.configured import build_callbacks
from losslab.training.ema import with_averaged
from losslab.training.fitting import check_kinds
from losslab.training.limits import batches_of_passes, cycle_of
from losslab.training.network import Network
from losslab.training.optimizers import make_optimizer
from losslab.training.output.loggers import check_loggers
from losslab.training.random import derive_seed, generator, global_stream
from losslab.training.reading import check_reading
from losslab.training.schedules import make_scheduler
from losslab.training.trial.forms import check_data, check_info, check_model, check_task
from losslab.training.two_passes import check_random

UNKNOWN = DataInfo(splits={}, mean_positions=1, vocab_size=1, frame_width=1)
"""Stands for data that is not read yet, where a model is constructed to be checked."""


def build_part(config: dict[str, Any], name: str, **late: Any) -> Any:
    """The component `name`, built under the global stream of its name. `late` are arguments that only now are known."""
    seed = seed_of(config, "backbone_init") if name == "model" else config["seed"]
    with global_stream(seed, name):
        return build(config[name], name, **late)


def check_components(config: dict[str, Any]) -> None:
    """Construct everything once, on no device and without data, so that bad values are refused before any is read."""
    with global_stream(config["seed"], "check"):
        _check(config)


def _check(config: dict[str, Any]) -> None:
    backbone = _on_meta(partial(build_backbone, config, UNKNOWN))
    _check_context(config, backbone)
    loss = build_loss(config)
    if loss.reads_teacher and loss.teacher is None:
        raise UserError(f"loss.teacher is missing: {chosen('loss', loss)} learns from a run, name its folder")
    task = build_task(config)
    check_kinds(loss, task)
    _check_split(loss, config)
    if config["trainer"]["r_drop"]:
        check_r_drop(loss)
        if task.points:
            raise UserError(f"trainer.r_drop compares classes, and {chosen('task', task)} has places: leave it out")
        if config["model"]["_target_"].startswith("losslab.models."):
            check_random(backbone)
    check_reading(backbone, task)
    _check_whole_batch(config, backbone)
    build_data(config).check_task(task)
    build_callbacks(config, with_averaged(task.metrics, task.primary, config["callbacks"]), task.primary)
    _check_optimizer(config, backbone)
    check_loggers(config)


def _check_split(loss: Loss, config: dict[str, Any]) -> None:
    """Refuse to split the batch of a loss that compares its positions: a split changes no fingerprint."""
    trainer, size = config["trainer"], config["data"].get("batch_size")
    parts = (trainer["accumulate_grad_batches"] or 1) * trainer["devices"] * trainer["num_nodes"]
    if trainer["micro_batch_size"] and size:
        parts = max(parts, size // trainer["micro_batch_size"])
    if not loss.position_wise and parts > 1:
        raise UserError(
            f"{chosen('loss', loss)} compares the positions of a batch with one another, and this batch is split "
            f"into {parts}: leave out trainer.micro_batch_size, trainer.accumulate_grad_batches and further devices"
        )


def _check_context(config: dict[str, Any], backbone: torch.nn.Module) -> None:
    asked, longest = config["data"].get("context"), context_of(backbone)
    if isinstance(asked, int) and longest is not None and asked > longest:
        raise UserError(
            f"data.context={asked} is longer than the {longest} inputs that the model reads: "
            f"give data.context={longest} or less, or a longer model.context"
        )


def _check_whole_batch(config: dict[str, Any], backbone: torch.nn.Module) -> None:
    trainer = config["trainer"]
    ranks = trainer["devices"] * trainer["num_nodes"]
    parts = ranks * (trainer["accumulate_grad_batches"] or 1)
    if not mixes_samples(backbone):
        return
    if trainer["activation_checkpointing"]:
        raise UserError(
            f"trainer.activation_checkpointing=true computes each layer twice, and {chosen('model', backbone)} "
            "would count each batch twice in its running averages: leave it out, or choose another model.norm"
        )
    if parts > 1:
        raise UserError(
            f"{chosen('model', backbone)} normalises over the batch, and this batch is split into {parts} parts "
            "(ranks × trainer.accumulate_grad_batches), whose statistics are not those of the whole: give one device "
            "and no accumulation, or another model.norm"
        )


def _on_meta(make: Callable[[], Any]) -> Any:
    """The value of `make`, without memory; or on the CPU, where a constructor reads values: drop path's
    `torch.linspace(…).item()` is no mistake. Sizes that overflow without memory are not tried with it."""
    try:
        with torch.device("meta"):
            return make()
    except Exception as error:  # a person's constructor may raise anything
        if (isinstance(error, UserError) and error.__cause__ is None) or "overflow" in str(error):
            raise
    return make()


def _check_optimizer(config: dict[str, Any], backbone: torch.nn.Module) -> None:
    """Make optimizer and scheduler once, for the parameters that this model has; those of a loss come with the data."""
    parts = torch.nn.ModuleDict({"backbone": backbone})
    parts["projection"] = _on_meta(partial(projection_of, backbone, 1, torch.Generator(), OutputProjection))
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
    check_task(task)
    return task  # type: ignore[no-any-return]


def build_data(config: dict[str, Any]) -> DataModule:
    """The data module, not prepared. Raises UserError for a class that is none."""
    data = build_part(config, "data")
    check_data(data)
    data.memory = Path(config["output_dir"]) / CACHE
    return data  # type: ignore[no-any-return]


def build_backbone(config: dict[str, Any], info: DataInfo, init: torch.Generator | None = None) -> torch.nn.Module:
    """The model, with what its constructor takes of `vocab_size`, `frame_width` and `generator`.

    Raises:
        UserError: for a class that is no model, or that wants a vocabulary or vectors where the data has none.
    """
    target = import_target(config["model"]["_target_"], "model")
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    late: dict[str, Any] = {"vocab_size": info.vocab_size} | ({} if init is None else {"generator": init})
    late = {name: value for name, value in late.items() if takes_any or name in parameters}
    late |= {name: getattr(info, name) for name in parameters.keys() & FROM_DATA["model"] - config["model"].keys()}
    for name, lacking, other in (
        ("vocab_size", "vocabulary", "patches"),
        ("frame_width", "vectors (`frames`)", "decoder or model=encoder"),
    ):
        if late.get(name, 0) is None:
            raise UserError(f"{chosen('model', target)} needs {name}, and this data has no {lacking}: model={other}")
    backbone = build_part(config, "model", **late)
    check_model(backbone, target.__name__)
    return backbone  # type: ignore[no-any-return]


def build_network(config: dict[str, Any], info: DataInfo) -> Network:
    """Every part on the CPU and from streams of its own, so that no part shifts what another draws.

    Args:
        info: what the data says of itself, or a checkpoint of the data.
    """
    head_seed = seed_of(config, "head_init")
    with torch.device("cpu"):
        backbone = build_backbone(config, info, generator(seed_of(config, "backbone_init"), "backbone_init"))
        with global_stream(head_seed, "loss"):
            loss = build_loss(config)
        return Network(
            backbone=backbone,
            loss=loss,
            task=build_task(config),
            info=info,
            head_init=generator(head_seed, "head_init"),
            r_drop=config["trainer"]["r_drop"],
        )


def hash_inputs(config: dict[str, Any], data: DataModule | None = None) -> dict[str, str]:
    """Dotted key of each input of the data → SHA-256 of its content."""
    with global_stream(config["seed"], "hashes"):
        hashes: dict[str, str] = (data or build_data(config)).content_hashes(build_task(config))
        return hashes


def hash_model(config: dict[str, Any]) -> dict[str, str]:
    """Dotted key of each input of a model that reads files (`content_hashes`) → SHA-256 of its content.

    Raises:
        UserError: where they are not there, or cannot be read.
    """
    target = import_target(config["model"]["_target_"], "model")
    if not hasattr(target, "content_hashes"):
        return {}
    return {f"model.{key}": digest for key, digest in target.content_hashes(config["model"]).items()}


def measure_passes(config: dict[str, Any]) -> dict[str, float | None]:
    """Split → batches that a pass over it takes. Raises UserError as `prepare_data` does."""
    data, _ = prepare_data(config)
    return batches_of_passes(data.info, data)


def prepare_data(config: dict[str, Any]) -> tuple[DataModule, Task]:
    """Data and task, in the cache where the run will find the data.

    Raises:
        UserError: for data that cannot be prepared, and where the cache cannot be made.
    """
    data, task = build_data(config), build_task(config)
    data.check_task(task)
    assert data.memory is not None
    try:
        data.memory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {error.filename or data.memory} cannot be made: {error.strerror}") from None
    with global_stream(config["seed"], "preparation"):
        data.info = data.prepare(data.memory, task)
    check_info(data, data.info)
    return data, task


def open_data(run: RunFolder, config: dict[str, Any]) -> DataModule:
    """The run's data, prepared; in the cache beside the sweeps, or, where a run was moved away from it, in its own."""
    data, task = build_data(config), build_task(config)
    data.seed = derive_seed(seed_of(config, "data_order"), "data_order")
    data.repeats_after = cycle_of(config)
    data.memory = run.shared_cache if run.shared_cache.is_dir() else run.own_cache
    with global_stream(config["seed"], "preparation"):
        data.info = data.prepare(data.memory, task)
    check_info(data, data.info)
    return data
