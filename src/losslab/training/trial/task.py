"""Trials of what a task makes of a batch: features for each kind of target, metrics by their declared names."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch

from losslab.contracts import Batch, DataInfo, Features, Meter, Projection, TargetKind, Task
from losslab.errors import Fault, UserError, error_sentence
from losslab.losses.base import Loss
from losslab.losses.targets import in_kind
from losslab.training.long_inputs import reader_of
from losslab.training.network import Network
from losslab.training.random import global_stream

_SUM = 1e-4


def features_of(network: Network, info: DataInfo, batch: Batch, kind: TargetKind, needs: Mapping[str, int]) -> Features:
    """Features of a batch, in evaluation mode. Raises Fault where they are not what the contract says."""
    task = network.task
    name = f"features(…, TargetKind.{kind.name}, …)"
    with global_stream(0, "trial"), torch.no_grad():
        network.eval()
        try:
            found = task.features(reader_of(network.backbone, batch), batch, kind, needs)  # type: ignore[arg-type]
        except UserError as error:
            raise Fault(str(error)) from None
        except Exception as error:  # a person's task may raise anything
            raise Fault(f"{name} raises {error_sentence(error)}") from error
    if not isinstance(found, Features):
        raise Fault(f"{name} gives a {type(found).__name__}, not losslab.contracts.Features")
    width = int(network.backbone.width)  # type: ignore[arg-type]
    count = len(found.weight) if found.weight.ndim else 0
    if found.weight.ndim != 1 or found.weight.dtype != torch.float32:
        raise Fault(f"{name} gives weights {found.weight.dtype} {list(found.weight.shape)}; they are float32 [N]")
    places = count if found.lengths is None else int(found.lengths.sum())
    if (found.lengths is None) is (kind is TargetKind.SEQUENCES):
        raise Fault(f"{name} gives lengths={found.lengths}; they are int64 [S] where targets are sequences, else None")
    points = task.points and found.hidden.ndim == 3
    if (*found.hidden.shape[:1], *found.hidden.shape[1 + points :]) != (places, width):
        what = f"{count} weights" if found.lengths is None else f"lengths whose sum is {places}"
        raise Fault(
            f"{name} gives hidden states of shape {list(found.hidden.shape)} and {what}; they are [N, D], N "
            f"selected positions of width D={width}, flattened"
        )
    if task.points:
        _check_choices(task, found, network.projection, name)
    else:
        _check_target(found, kind, task.target_size(info), name)
    for extra, value in found.extras.items():
        if len(value) != count:
            raise Fault(f"{name} gives {len(value)} rows of the extra {extra!r} for {count} positions")
    if lacking := sorted(needs.keys() - found.extras.keys()):
        raise Fault(f"{name} gives no extra {lacking[0]!r}, which `provides` promises and a loss asked for")
    return found


def _check_choices(task: Task, found: Features, projection: Projection, name: str) -> None:
    """Check the arguments of the loss under a task that points."""
    weight = 0.0
    for part, identity in task.choices(found, projection):
        _check_target(part, TargetKind.CLASSES, len(identity.weight), f"choices after {name}")
        weight += float(part.weight.sum())
    if abs(weight - float(found.weight.sum())) > _SUM * max(1.0, weight):
        raise Fault(f"choices after {name} give the weight {weight:g}, and features {float(found.weight.sum()):g}")


def _check_target(found: Features, kind: TargetKind, size: int, name: str) -> None:
    if kind in (TargetKind.DISTRIBUTIONS, TargetKind.LABELS) and found.target.dtype == torch.int64:
        kind = TargetKind.CLASSES  # the network turns classes into what a loss of these kinds reads
    target, count = found.target, len(found.weight)
    kept = target[found.weight != 0] if len(target) == count else target
    wanted = {
        TargetKind.CLASSES: f"int64 [N], classes from 0 to {size - 1}",
        TargetKind.DISTRIBUTIONS: f"floating-point [N, {size}], each row of which sums to 1",
        TargetKind.LABELS: f"floating-point [N, {size}], each from 0 to 1",
        TargetKind.VALUES: f"floating-point [N, {size}], finite",
        TargetKind.SEQUENCES: f"int64 [S, U], classes from 0 to {size - 1}, and −1 behind the last of each",
    }[kind]
    if kind in (TargetKind.CLASSES, TargetKind.SEQUENCES):
        lowest = 0 if kind is TargetKind.CLASSES else -1
        right = target.dtype == torch.int64 and target.ndim == 1 - lowest and len(target) == count
        right = right and (not kept.numel() or lowest <= int(kept.min()) <= int(kept.max()) < size)
    else:
        right = target.is_floating_point() and tuple(target.shape) == (count, size) and bool(kept.isfinite().all())
        if right and kind is not TargetKind.VALUES:
            right = bool(((kept >= 0) & (kept <= 1)).all())
        if right and kind is TargetKind.DISTRIBUTIONS:
            right = bool(((kept.sum(dim=-1) - 1).abs() < _SUM).all())
    if not right:
        there = f", from {kept.min():g} to {kept.max():g}" if kept.numel() else ""
        raise Fault(
            f"{name} gives targets {str(target.dtype).removeprefix('torch.')} {list(target.shape)}{there} for {count} "
            f"positions; they are {wanted}"
        )


def calibration_of(network: Network, info: DataInfo, batches: Iterable[Batch], loss: Loss) -> dict[str, float]:
    """Numbers that the task's calibrator fits, through a loss that may learn them. Raises Fault for other names than
    declared."""
    calibrator = network.task.calibrator(info)
    if calibrator is None:
        return {}
    with torch.no_grad():
        for batch in batches:
            calibrator.update(_features(network, batch), loss, network.projection)
        found = calibrator.finish(loss, network.projection)
    names = getattr(calibrator, "names", ())
    if set(found) != set(names):
        raise Fault(
            f"the calibrator {type(calibrator).__name__} returns {', '.join(found) or 'nothing'}, and its `names` are "
            f"{', '.join(names) or 'empty'}: name what finish returns"
        )
    return found


def meter_of(
    network: Network, info: DataInfo, batches: Iterable[Batch], calibration: Mapping[str, float], loss: Loss, *,
    split: str = "val", thorough: bool = False,
) -> Meter:  # fmt: skip
    """A meter that has seen some batches."""
    meter = network.task.meter(info, split, calibration, thorough=thorough)
    with torch.no_grad():
        for batch in batches:
            meter.update(_features(network, batch), loss, network.projection)
    return meter


def values_of(meter: Meter, task: Task) -> dict[str, float]:
    """The values of a meter. Raises Fault for one that is not declared, or where the primary one is missing."""
    values = meter.values()
    declared = {metric.name for metric in task.metrics}
    if strangers := sorted(values.keys() - declared):
        raise Fault(
            f"the meter {type(meter).__name__} returns {strangers[0]}, which the `metrics` of {type(task).__name__} do "
            "not declare: add a Metric for it"
        )
    if task.primary not in values:
        raise Fault(f"the meter {type(meter).__name__} returns no {task.primary}, the `primary` metric of its task")
    return values


def _features(network: Network, batch: Batch) -> Features:
    network.eval()
    with global_stream(0, "trial"):
        kind, needs = network.loss.target_kind, network.loss.needs
        found = network.task.features(reader_of(network.backbone, batch), batch, kind, needs)  # type: ignore[arg-type]
        return in_kind(found, kind, network.target_size)


def meters(network: Network, info: DataInfo, fit: list[Batch], scored: list[Batch]) -> dict[str, float]:
    """The values of a validation on a few samples, in the order in which one works."""
    loss = copy.deepcopy(network.loss)
    calibration = calibration_of(network, info, fit, loss)
    return values_of(meter_of(network, info, scored, calibration, loss), network.task)
