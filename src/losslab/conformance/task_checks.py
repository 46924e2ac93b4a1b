"""The kit of tasks: features for each kind of target, and metrics that are sums over positions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from losslab.config.binding import bind_components
from losslab.conformance.samples import few_samples, rows
from losslab.contracts import Batch, DataInfo, Meter, TargetKind, Task
from losslab.contracts.task import Combined
from losslab.errors import Fault
from losslab.losses.base import Loss
from losslab.losses.binary_cross_entropy import BinaryCrossEntropy
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.ctc import CTC
from losslab.losses.mse import MSE
from losslab.losses.soft_cross_entropy import SoftCrossEntropy
from losslab.training.factory import build_backbone, build_data, build_loss, build_task
from losslab.training.long_inputs import reader_of
from losslab.training.network import Network
from losslab.training.random import generator
from losslab.training.trial import task as trials

USUAL: Mapping[TargetKind, Callable[[], Loss]] = {
    TargetKind.CLASSES: CrossEntropy,
    TargetKind.DISTRIBUTIONS: SoftCrossEntropy,
    TargetKind.LABELS: BinaryCrossEntropy,
    TargetKind.VALUES: MSE,
    TargetKind.SEQUENCES: CTC,
}
_SAME = 1e-4
_NEEDED = 2


@dataclass(frozen=True)
class TaskTrial:
    """A task on trial, with the model and the data of the configuration."""

    config: dict[str, Any]
    task: Task
    info: DataInfo
    samples: dict[str, Batch]
    """Some of each split."""

    @property
    def batch(self) -> Batch:
        return self.samples["val"]

    def network(self, kind: TargetKind) -> Network:
        """With the configuration's loss where it wants this kind of target, else the usual one."""
        own = build_loss(self.config)
        loss = own if own.target_kind is kind and not own.reads_teacher else USUAL[kind]()
        return Network(
            backbone=build_backbone(self.config, self.info, generator(1, "backbone_init")),
            loss=loss, task=self.task, info=self.info, head_init=generator(1, "head_init"),
        ).eval()  # fmt: skip

    def meter(self, network: Network, batches: list[Batch], split: str = "val", *, thorough: bool = True) -> Meter:
        """A meter that has seen these batches, by a calibration on all samples."""
        loss = copy.deepcopy(network.loss)
        found = trials.calibration_of(network, self.info, [self.batch], loss)
        return trials.meter_of(network, self.info, batches, found, loss, split=split, thorough=thorough)

    @property
    def kinds(self) -> list[TargetKind]:
        return sorted(self.task.accepts, key=lambda kind: kind.value)


def subject(config: dict[str, Any], stack: ExitStack) -> TaskTrial:
    """The task on trial.

    Raises:
        UserError: for what can be seen before anything computes: signature, declarations, data that it does not fit.
    """
    task = build_task(config)
    build_data(config).check_task(task)
    if config["model"].get("tie_embeddings"):
        config = bind_components({**config, "model": {**config["model"], "tie_embeddings": False}})
    return TaskTrial(config, task, *few_samples(config, task, stack))


def declarations(trial: TaskTrial) -> str:
    """Sizes, and what the class declares, which was checked when it was constructed."""
    size = trial.task.target_size(trial.info)
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise Fault(f"target_size(info) gives {size!r}; it is the number of classes, or of values a position")
    kinds = " or ".join(kind.value for kind in trial.kinds)
    return f"{kinds}, {size:,} a position; {len(trial.task.metrics)} metrics, primary {trial.task.primary}"


def features(trial: TaskTrial) -> str:
    """Rows, targets and extras for each kind of target that it accepts."""
    said = []
    for kind in trial.kinds:
        found = trials.features_of(trial.network(kind), trial.info, trial.batch, kind, {})
        said.append(f"{kind.value} {list(found.target.shape)}")
    for name in sorted(trial.task.provides):
        kind = trial.kinds[0]
        trials.features_of(trial.network(kind), trial.info, trial.batch, kind, {name: _NEEDED})
        said.append(f"with {name}")
    return ", ".join(said)


def gradient_reaches_the_model(trial: TaskTrial) -> str:
    """Hidden states are connected to the model."""
    for kind in trial.kinds:
        network = trial.network(kind).train()
        body = reader_of(network.backbone, trial.batch)  # type: ignore[arg-type]
        found = trial.task.features(body, trial.batch, kind, network.loss.needs)
        if not found.hidden.requires_grad:
            raise Fault("features gives hidden states without a gradient: something on the way is detached (no_grad?)")
    return "hidden states have a gradient"


def flat_targets_agree(trial: TaskTrial) -> str:
    """`flat_targets` gives the positions of `features`."""
    found = trials.features_of(trial.network(trial.kinds[0]), trial.info, trial.batch, trial.kinds[0], {})
    target, weight = trial.task.flat_targets(trial.batch)
    if len(target) != len(weight) or not math.isclose(float(weight.sum()), float(found.weight.sum()), rel_tol=_SAME):
        raise Fault(
            f"flat_targets gives {len(target)} targets of weight {float(weight.sum()):g}, and features {len(found)} "
            f"of {float(found.weight.sum()):g}: a loss that reads the whole step would divide by another sum"
        )
    return f"{len(target)} positions"


def metrics(trial: TaskTrial) -> str:
    """A meter of val and of test returns what is declared; the calibrator, what it names."""
    lacking: set[str] = set()
    for kind in trial.kinds:
        network = trial.network(kind)
        for split, thorough in (("val", False), ("val", True), ("test", True)):
            values = trials.values_of(
                trial.meter(network, [trial.samples[split]], split, thorough=thorough), trial.task
            )
            if not math.isfinite(values[trial.task.primary]):
                raise Fault(
                    f"the primary metric {trial.task.primary} of {split} is {values[trial.task.primary]}, for targets "
                    f"that are {kind.value}"
                )
            lacking |= {name for name, value in values.items() if not math.isfinite(value)}
    if lacking:
        return f"as declared; without a value here: {', '.join(sorted(lacking))}"
    return "as declared, and finite"


def sums_add_up(trial: TaskTrial) -> str:
    """One batch, its halves one after the other, and two ranks that are combined give the same metrics."""
    half = len(trial.batch.weight) // 2
    halves = [rows(trial.batch, slice(0, half)), rows(trial.batch, slice(half, None))]
    for kind in trial.kinds:
        network = trial.network(kind)
        whole = trials.values_of(trial.meter(network, [trial.batch]), trial.task)
        _compare(whole, trials.values_of(trial.meter(network, halves), trial.task), "in two batches as in one")
        meters = [trial.meter(network, [part]) for part in halves]
        meters[0].combine(_combined([meter.states() for meter in meters]))
        _compare(whole, trials.values_of(meters[0], trial.task), "on two ranks as on one, once `states` are combined")
    return "in halves, and on two ranks"


def _combined(parts: list[dict[str, tuple[Tensor, Combined]]]) -> dict[str, Tensor]:
    """The states of all ranks together, as an evaluation combines them."""
    if len({frozenset(part) for part in parts}) > 1:
        raise Fault("states() has other names after other batches: ranks could not combine them")
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "sum": lambda states: states.sum(dim=0),
        "max": lambda states: states.amax(dim=0),
        "min": lambda states: states.amin(dim=0),
    }
    found = {}
    for name, (state, how) in parts[0].items():
        states = [part[name][0] for part in parts]
        if how != "cat" and how not in ways:
            raise Fault(f"states() says that {name!r} is combined by {how!r}; there are sum, max, min, cat")
        if how != "cat" and any(other.shape != state.shape for other in states):
            raise Fault(f"the state {name!r} has another shape after other batches, and is combined by {how!r}: cat?")
        found[name] = torch.cat(states) if how == "cat" else ways[how](torch.stack(states))
    return found


def _compare(left: dict[str, float], right: dict[str, float], where: str) -> None:
    for name in sorted(left.keys() | right.keys()):
        a, b = left.get(name, math.nan), right.get(name, math.nan)
        if not math.isclose(a, b, rel_tol=_SAME, abs_tol=_SAME) and not (math.isnan(a) and math.isnan(b)):
            raise Fault(
                f"{name} is not the same {where} ({b:.6g} and {a:.6g}): a meter keeps sums and counts, and divides in "
                "`values`; a mean of means is none"
            )


def ignored_positions(trial: TaskTrial) -> str:
    """Targets at positions of weight 0 change no metric."""
    weight = trial.batch.weight.clone()
    weight.flatten()[1::3] = 0
    before = trial.batch._replace(weight=weight)
    target = before.target.clone()
    ignored = weight == 0
    target[ignored] = target.roll(1, 0)[ignored]
    if torch.equal(target, before.target):
        target[ignored] = target.flip(0)[ignored]
    after = before._replace(target=target)
    for kind in trial.kinds:
        network = trial.network(kind)
        first, second = (trials.values_of(trial.meter(network, [batch]), trial.task) for batch in (before, after))
        for name in sorted(first):
            a, b = first[name], second[name]
            if not math.isclose(a, b, rel_tol=_SAME, abs_tol=_SAME) and not (math.isnan(a) and math.isnan(b)):
                raise Fault(
                    f"{name} changes from {a:.6g} to {b:.6g} with the targets of positions whose weight is 0: multiply "
                    "by features.weight, or look at features.kept()"
                )
    return "they change no metric"


def empty_rank(trial: TaskTrial) -> str:
    """A rank whose samples all have weight 0 scores none of them."""
    idle = trial.batch._replace(weight=torch.zeros_like(trial.batch.weight))
    for kind in trial.kinds:
        network = trial.network(kind)
        whole = trials.values_of(trial.meter(network, [trial.batch]), trial.task)
        padded = trials.values_of(trial.meter(network, [trial.batch, idle]), trial.task)
        _compare(whole, padded, "with a batch of weight 0 after it, which ranks get that have no more samples,")
    return "a batch of weight 0 adds nothing"


CHECKS: dict[str, Callable[[TaskTrial], str]] = {
    "declarations": declarations,
    "features": features,
    "gradient": gradient_reaches_the_model,
    "flat targets": flat_targets_agree,
    "metrics": metrics,
    "sums": sums_add_up,
    "ignored positions": ignored_positions,
    "idle batches": empty_rank,
}
