"""Make the callbacks that a configuration names, and refuse those that could not work in one endless epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import DeviceStatsMonitor, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.utilities.model_helpers import is_overridden

from losslab.config.components import build
from losslab.config.metric_words import nearest_metric
from losslab.config.streams import seed_of
from losslab.config.trust import allowed, targets
from losslab.errors import UserError
from losslab.metric import Metric
from losslab.records import Record
from losslab.run_folder import CHECKPOINTS, RunFolder
from losslab.training.callbacks.ends import not_repeatable
from losslab.training.ema import EMA
from losslab.training.output.messages import note
from losslab.training.random import global_stream

_VAL = "val/"
_TRAIN = ("train/objective", "train/lr", "train/tokens", "grad_norm/all")
_TRAIN_PARTS = ("train/objective/", "train/lr/", "grad_norm/")
"""Other values that a monitor may name: of the logged steps."""
_EPOCHS = "works at the ends of epochs, and a run is one epoch"
_REFUSED = {
    "StochasticWeightAveraging": f"{_EPOCHS}: take callbacks=ema, or lightning.pytorch.callbacks.WeightAveraging",
    "BackboneFinetuning": _EPOCHS,
    "ModelPruning": _EPOCHS,
    "LambdaCallback": "takes functions, which a configuration cannot hold: write a class of your own",
    "GradientAccumulationScheduler": "changes trainer.accumulate_grad_batches, which splits an optimizer step evenly",
    "BatchSizeFinder": "trains a run of its own: choose trainer.micro_batch_size by trying",
    "LearningRateFinder": "trains a run of its own: sweep optimizer.lr in a multirun",
}
"""Lightning's callbacks that have nothing to do here, or would break what a run promises."""


def build_callbacks(
    config: dict[str, Any], metrics: Sequence[Metric], primary: str, run: RunFolder | None = None
) -> dict[str, pl.Callback]:
    """The callbacks by their names in the configuration, each from a random stream of its own.

    Args:
        metrics: those that a validation gives; a `monitor` names one as val/NAME.
        primary: the metric that stands for a monitor that is null.
        run: None where they are only tried.

    Raises:
        UserError: for a class that is no callback, settings that it refuses or that never fire, and monitors that no
            metric answers to.
    """
    built: dict[str, pl.Callback] = {}
    for name, node in config["callbacks"].items():
        where = f"callbacks.{name}"
        kind = node["_target_"].rpartition(".")[2]
        if kind in _REFUSED and node["_target_"].startswith(("lightning.", "pytorch_lightning.")):
            raise UserError(f"{where}: {kind} {_REFUSED[kind]}")
        node = _monitoring(where, node, config, {metric.name: metric for metric in metrics}, primary)
        with global_stream(seed_of(config, "callbacks"), where):
            callback = build(_placed(name, node, run), where)
        if not isinstance(callback, pl.Callback):
            raise UserError(f"{where}: {kind} does not derive from lightning.pytorch.Callback")
        _check(where, callback, node)
        if isinstance(callback, WeightAveraging) and config["trainer"]["strategy"] == "fsdp":
            raise UserError(f"{where}: {kind} cannot average sharded weights (trainer=fsdp): take callbacks=ema")
        built[name] = callback
    _check_states(built)
    averages = [name for name, callback in built.items() if isinstance(callback, EMA)]
    if len(averages) > 1:
        raise UserError(f"callbacks.{averages[1]}: a run keeps one average of its weights, and has {averages[0]}")
    return built


def averages_weights(callbacks: Iterable[pl.Callback]) -> bool:
    """Whether a callback puts averages in the place of the weights, in validations and checkpoints."""
    return any(
        isinstance(callback, WeightAveraging) or getattr(callback, "averages_weights", False) for callback in callbacks
    )


def note_callbacks(record: Record, callbacks: dict[str, pl.Callback], stopped: dict[str, Any] | None) -> None:
    """Write into the record what the callbacks make of the run: what they monitor, whether its weights are averages,
    and whether it can be repeated."""
    monitors = {
        name: f"{callback.monitor}, {callback.mode}"
        for name, callback in callbacks.items()
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor is not None
    }
    about: dict[str, Any] = {"monitors": monitors, "not_repeatable": not_repeatable(callbacks)}
    about["observers"] = [name for name, callback in callbacks.items() if getattr(callback, "observes_only", False)]
    about["weights"] = "averaged" if averages_weights(callbacks.values()) else None
    record.provenance |= {key: value for key, value in about.items() if value}
    record.stopped = stopped or {}


def _monitoring(
    where: str, node: dict[str, Any], config: dict[str, Any], metrics: dict[str, Metric], primary: str
) -> dict[str, Any]:
    """The node with the metric that it monitors, and the better side of that, where they were left open."""
    if "monitor" not in node:
        return node
    optional = node["_target_"].endswith(".ModelCheckpoint")
    monitor = node["monitor"]
    if monitor is None and not optional:
        monitor = f"{_VAL}{primary}"
    metric = metrics.get(str(monitor).removeprefix(_VAL)) if str(monitor).startswith(_VAL) else None
    if monitor is not None and metric is None:
        _check_monitor(where, str(monitor), config, metrics)
    node = {**node, "monitor": monitor}
    if "mode" not in node:
        return node
    side = None if metric is None else metric.higher_is_better
    if node["mode"] is not None:
        if side is not None and node["mode"] != ("max" if side else "min"):
            note(f"{where}.mode={node['mode']}, and {monitor} is better when it is {'higher' if side else 'lower'}")
        return node
    if monitor is not None and side is None:
        raise UserError(f"{where}.mode must be min or max: {monitor} has no better side of its own")
    return {**node, "mode": "max" if side else "min"}


def _check_monitor(where: str, monitor: str, config: dict[str, Any], metrics: dict[str, Metric]) -> None:
    if monitor in _TRAIN or monitor.startswith(_TRAIN_PARTS):
        return
    known = [f"{_VAL}{name}" for name in metrics]
    if targets({"callbacks": config["callbacks"]}) - allowed():
        note(f"{where}.monitor={monitor} is no metric of the task: one of your callbacks has to log it")
        return
    raise UserError(f"{where}.monitor: there is no metric {monitor!r}: {nearest_metric(monitor, [*known, *_TRAIN])}")


def _placed(name: str, node: dict[str, Any], run: RunFolder | None) -> dict[str, Any]:
    """The node with the folder that Lightning's checkpoints go to: a relative one begins in the run's folder."""
    if "dirpath" not in node:
        return node
    folder = Path(node["dirpath"] or Path(CHECKPOINTS) / name).expanduser()
    return {**node, "dirpath": str(folder if run is None else run.path.absolute() / folder)}


def _check(where: str, callback: pl.Callback, node: dict[str, Any]) -> None:
    """Refuse settings with which a callback would never do anything."""
    if isinstance(callback, EarlyStopping) and node.get("check_on_train_epoch_end"):
        raise UserError(f"{where}.check_on_train_epoch_end=true never stops a run, which is one epoch: leave it out")
    if node["_target_"].endswith(".Timer") and node.get("interval", "step") != "step":
        raise UserError(f"{where}.interval=epoch never stops a run, which is one epoch: leave it out")
    if isinstance(callback, DeviceStatsMonitor) and node.get("cpu_stats") is not False and find_spec("psutil") is None:
        raise UserError(f"{where} needs the package psutil for the load of the CPU: pip install psutil")
    if isinstance(callback, ModelCheckpoint) and (node.get("every_n_epochs") or 1) > 1:
        raise UserError(f"{where}.every_n_epochs never comes in a run, which is one epoch: write every_n_train_steps=N")


def _check_states(callbacks: dict[str, pl.Callback]) -> None:
    """Refuse two callbacks whose states would overwrite each other in a checkpoint."""
    seen: dict[str, str] = {}
    for name, callback in callbacks.items():
        if not is_overridden("state_dict", instance=callback, parent=pl.Callback):
            continue
        if callback.state_key in seen:
            raise UserError(
                f"callbacks.{name} and callbacks.{seen[callback.state_key]} have the same state_key "
                f"({callback.state_key}), under which a checkpoint keeps the state of one: they must differ in it"
            )
        seen[callback.state_key] = name
