"""The kit of models: what a person's own is asked, on the CPU and on a few samples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from losslab.choices import chosen
from losslab.conformance.samples import few_samples, rows
from losslab.contracts import blocks_of, context_of, flops_of
from losslab.training.factory import build_backbone, build_loss, build_task, check_components
from losslab.training.random import generator
from losslab.training.trial import model as trials
from losslab.training.trial import weights
from losslab.training.trial.documents import documents_apart
from losslab.training.trial.model import ModelTrial

_SAMPLES = 4
FIRST = "hidden states"
"""Where this one fails, the others would only repeat it."""


def subject(config: dict[str, Any], stack: ExitStack) -> ModelTrial:
    """The model on trial.

    Raises:
        UserError: for what can be seen before anything computes: signature, width, members, kinds.
    """
    check_components(config)
    task, loss = build_task(config), build_loss(config)
    info, samples = few_samples(config, task, stack)
    batch = rows(samples["train"], slice(0, _SAMPLES))

    def make(seed: int) -> nn.Module:
        with torch.device("cpu"):
            return build_backbone({**config, "seed": seed}, info, generator(seed, "backbone_init"))

    num_outputs = loss.num_outputs(task.target_size(info))
    return ModelTrial(make, batch, task, loss.target_kind, num_outputs, info.vocab_size)


def causality(trial: ModelTrial) -> str:
    """No position reads ahead, where the task predicts what follows."""
    if not trial.task.causal:
        return f"{chosen('task', trial.task)} lets positions read ahead"
    return trials.causal(trial)


def declarations(trial: ModelTrial) -> str:
    """The declarations of the model; each part is checked when it is constructed."""
    model = trial.make(1)
    flops, context = flops_of(model), context_of(model)
    parts = [
        f"{len(blocks_of(model))} blocks",
        "any context" if context is None else f"context {context:,}",
        "no flops_per_sample" if flops is None else f"{flops:,} FLOPs a sample",
        f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters",
    ]
    return ", ".join(parts)


def cache(trial: ModelTrial) -> str:
    """A cache changes nothing, where the task predicts what follows and text can be generated."""
    if not trial.task.causal:
        return f"{chosen('task', trial.task)} generates no text"
    return trials.cached(trial)


CHECKS: dict[str, Callable[[ModelTrial], str]] = {
    FIRST: trials.shape,
    "declarations": declarations,
    "seeds": weights.seeds,
    "modes": trials.repeats,
    "other samples": trials.batch_composition,
    "mask": trials.padding,
    "documents": documents_apart,
    "causality": causality,
    "cache": cache,
    "projection": weights.projection_fits,
    "saved state": weights.round_trip,
    "gradients": weights.gradients,
}
