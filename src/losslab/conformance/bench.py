"""`losslab bench`: what losses cost at the shape of a run, side by side."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from losslab.config.binding import bind_components
from losslab.config.check import check_run
from losslab.config.compose import compose_job
from losslab.config.identity import loss_label
from losslab.config.jobs import job_overrides, open_multirun
from losslab.config.schema import register
from losslab.config.words import ready
from losslab.conformance.measure import COMPILED, DENSE, FLOOR, Measurement, Shape, Variant, measure
from losslab.conformance.processes import started
from losslab.console import say, working
from losslab.contracts import TargetKind
from losslab.errors import Fault, UserError
from losslab.training.factory import build_loss
from losslab.training.process.devices import cores, uses_gpu


def bench(overrides: list[str], *, rounds: int, config_dir: Path | None = None) -> int:
    """Measure each loss of `loss=A,B,…` against the dense evaluation of itself and of cross-entropy.

    Raises:
        UserError: for a mistake in what was typed, and where a measurement ended without an answer.
    """
    if rounds < 1:
        raise UserError(f"--rounds must be 1 or more, not {rounds}")
    register()
    configs = _configs(overrides, config_dir)
    for config in configs.values():
        loss = build_loss(config)
        if loss.target_kind in (TargetKind.VALUES, TargetKind.SEQUENCES):
            raise UserError(
                f"{type(loss).__name__} is for {loss.target_kind.value}, not for one class of a vocabulary a position: "
                "nothing to measure"
            )
    shape = _shape(next(iter(configs.values())))
    variants = [Variant(FLOOR), Variant(DENSE)]
    if next(iter(configs.values()))["trainer"]["compile"]:
        variants.append(Variant(COMPILED))
    for label, config in configs.items():
        variants += [Variant(label, config), Variant(label, config, dense=True)]
    say(
        f"{shape.positions:,} positions, width {shape.width:,}, {shape.num_outputs:,} outputs, {shape.precision}, "
        f"{device_name(shape)}; medians of {rounds} round(s), forward and backward"
    )
    found: dict[Variant, list[Measurement]] = {variant: [] for variant in variants}
    for i in working(range(rounds * len(variants)), "measuring", rounds * len(variants)):
        variant = variants[i % len(variants)]  # in turns, so that a slow minute slows them all
        found[variant].append(_measure(variant, shape))
    for line in table(variants, found):
        say(line)
    for variant in variants:
        if note := found[variant][0].note:
            say(f"{variant.label} {note}; losslab's own engine was measured")
    return 0


def device_name(shape: Shape) -> str:
    """The card, or how many threads of the CPU."""
    return torch.cuda.get_device_name() if shape.device == "cuda" else f"{shape.threads} threads"


def table(variants: list[Variant], found: dict[Variant, list[Measurement]]) -> list[str]:
    """A row for each loss, after the metrics."""
    width = max(len(variant.label) for variant in variants)
    lines = [
        f"{'':<{width}}{'seconds':>10}{'of dense':>10}{'of its own':>12}{'MiB':>8}{'of dense':>10}{'of its own':>12}"
    ]
    dense = found[Variant(DENSE)]
    for variant in variants:
        if variant.dense:
            continue
        own = found[variant]
        same = next((found[other] for other in variants if other.dense and other.label == variant.label), None)
        lines.append(
            f"{variant.label:<{width}}{_median(own, 'seconds'):>10.3f}{_ratio(own, dense, 'seconds'):>10}"
            f"{_ratio(own, same, 'seconds'):>12}{_median(own, 'mib'):>8.0f}{_ratio(own, dense, 'mib'):>10}"
            f"{_ratio(own, same, 'mib'):>12}"
        )
    return lines


def _ratio(own: list[Measurement], other: list[Measurement] | None, what: str) -> str:
    """The median of the rounds' ratios."""
    if other is None or not all(getattr(measurement, what) for measurement in other):
        return "–"
    return f"{statistics.median(getattr(a, what) / getattr(b, what) for a, b in zip(own, other, strict=True)):.2f}"


def _median(measurements: list[Measurement], what: str) -> float:
    return float(statistics.median(getattr(measurement, what) for measurement in measurements))


def _configs(overrides: list[str], config_dir: Path | None) -> dict[str, dict[str, Any]]:
    """Configurations, one for each loss, by the overrides that distinguish it; only its loss and its shape are read."""
    opened = open_multirun([ready(override) for override in overrides], config_dir)
    jobs = job_overrides(opened)
    common = set(jobs[0]).intersection(*jobs[1:])
    configs: dict[str, dict[str, Any]] = {}
    for job in jobs:
        config, choices = compose_job(job, config_dir)
        own = [o for o in job if o.startswith(("loss.", "loss@", "regularizers.")) and o not in common]
        configs[" ".join([loss_label(choices), *own])] = bind_components(check_run(config))
    return configs


def _shape(config: dict[str, Any]) -> Shape:
    trainer, data = config["trainer"], config["data"]
    for key, value in {"data.vocab_size": data["vocab_size"], "data.batch_size": data["batch_size"]}.items():
        if value < 1:
            raise UserError(f"{key} must be above 0, not {value}")
    rows = trainer["micro_batch_size"] or data["batch_size"] // (trainer["accumulate_grad_batches"] or 1)
    return Shape(
        positions=rows * config["model"]["context"],
        width=config["model"]["width"],
        num_outputs=data["vocab_size"],
        threads=trainer["threads"] or cores(),
        device="cuda" if uses_gpu(trainer) else "cpu",
        precision=trainer["precision"],
    )


def _measure(variant: Variant, shape: Shape) -> Measurement:
    with started(measure, variant, shape) as receiving:
        try:
            answer = receiving.recv()
        except EOFError:
            raise UserError(f"{variant.label} could not be measured; see above") from None
    if isinstance(answer, Fault):
        raise UserError(f"{variant.label} could not be measured: {answer}")
    assert isinstance(answer, Measurement)
    return answer
