"""Learning-rate schedules: step → factor of the peak learning rate. Steps are optimizer steps."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from losslab.config.check import import_target
from losslab.config.components import build
from losslab.errors import UserError


def make_scheduler(node: dict[str, Any], optimizer: Optimizer, *, max_steps: int) -> LRScheduler:
    """The scheduler of a bound `scheduler` node: one of torch's, or step → factor of the learning rate, stepped after
    each optimizer step.

    Args:
        max_steps: the run's budget.

    Raises:
        UserError: for settings that it refuses, and for one that ends before the run.
    """
    target = import_target(node["_target_"], "scheduler")
    if issubclass(target, ReduceLROnPlateau):
        raise UserError(
            "scheduler: ReduceLROnPlateau follows a metric, and so differs between paired runs; choose a schedule of "
            "the step, such as scheduler=cosine"
        )
    if not issubclass(target, LRScheduler):
        known = inspect.signature(target).parameters
        return LambdaLR(
            optimizer, build(node, "scheduler", **({"max_steps": max_steps} if "max_steps" in known else {}))
        )
    scheduler: LRScheduler = build(node, "scheduler", optimizer=optimizer)
    ends = getattr(scheduler, "total_steps", None)
    if ends is not None and ends < max_steps:
        raise UserError(f"scheduler: {target.__name__} ends after {ends} steps, and the run has {max_steps}")
    return scheduler


class Constant:
    """Linear warm-up, then 1.

    Args:
        warmup_steps: 0 or above; step k < warmup_steps has factor (k + 1) / warmup_steps.
        max_steps: the run's budget.
    """

    def __init__(self, *, warmup_steps: int = 0, max_steps: int) -> None:
        _check_warmup(warmup_steps)
        self.warmup_steps = warmup_steps

    def __call__(self, step: int) -> float:
        return _warmup(step, self.warmup_steps)


class Cosine:
    """Linear warm-up, then half a cosine down to `final_fraction` (Loshchilov & Hutter 2017, arXiv:1608.03983).

    Args:
        warmup_steps: 0 or above.
        final_fraction: in [0, 1]; the factor at the last step.
        max_steps: the run's budget.
    """

    def __init__(self, *, warmup_steps: int = 0, final_fraction: float = 0.1, max_steps: int) -> None:
        _check_warmup(warmup_steps)
        if not 0 <= final_fraction <= 1:
            raise UserError(f"scheduler.final_fraction must be in [0, 1], not {final_fraction}")
        self.warmup_steps = warmup_steps
        self.final_fraction = final_fraction
        self.max_steps = max_steps

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.max_steps - 1 - self.warmup_steps))
        return self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _check_warmup(warmup_steps: int) -> None:
    if warmup_steps < 0:
        raise UserError(f"scheduler.warmup_steps must be 0 or above, not {warmup_steps}")
