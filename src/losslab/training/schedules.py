"""Learning-rate schedules: step → factor of the peak learning rate. Steps are optimizer steps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from losslab.config.binding import import_target
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
    factor = make_factor(node, max_steps=max_steps)
    if factor is not None:
        return LambdaLR(optimizer, factor)
    scheduler: LRScheduler = build(node, "scheduler", optimizer=optimizer)
    ends = getattr(scheduler, "total_steps", None)
    if ends is not None and ends < max_steps:
        raise UserError(f"scheduler: {target.__name__} ends after {ends} steps, and the run has {max_steps}")
    return scheduler


def make_factor(node: dict[str, Any], *, max_steps: int) -> Callable[[int], float] | None:
    """Step → factor of the learning rate; None where the node names a scheduler of torch's."""
    target = import_target(node["_target_"], "scheduler")
    if issubclass(target, LRScheduler):
        return None
    known = inspect.signature(target).parameters
    factor: Callable[[int], float] = build(
        node, "scheduler", **({"max_steps": max_steps} if "max_steps" in known else {})
    )
    return factor


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


class WarmupStableDecay:
    """Linear warm-up, then 1, then a decay in the last steps (Hu et al. 2024, arXiv:2404.06395).

    Only the decay depends on the budget: a run keeps the checkpoint before it (`stable.ckpt`), from which a longer run
    continues (`continue_from`). The decay over n steps has the factor 1 − (1 − final_fraction) · f(i / n) at its step
    i = 1 … n, with f(x) = x for `linear` and √x for `sqrt` (Hägele et al. 2024, arXiv:2405.18392).

    Args:
        warmup_steps: 0 or above.
        decay_fraction: in (0, 1]; the decay's share of the budget, rounded to whole steps, at least one.
        decay: linear or sqrt.
        final_fraction: in [0, 1]; the factor at the last step.
        max_steps: the run's budget.

    Raises:
        UserError: for values outside these ranges, and when warm-up and decay together exceed the budget.
    """

    def __init__(
        self,
        *,
        warmup_steps: int = 0,
        decay_fraction: float = 0.2,
        decay: Literal["linear", "sqrt"] = "sqrt",
        final_fraction: float = 0.0,
        max_steps: int,
    ) -> None:
        _check_warmup(warmup_steps)
        if not 0 < decay_fraction <= 1:
            raise UserError(f"scheduler.decay_fraction must be above 0 and at most 1, not {decay_fraction}")
        if not 0 <= final_fraction <= 1:
            raise UserError(f"scheduler.final_fraction must be in [0, 1], not {final_fraction}")
        decay_steps = max(1, round(decay_fraction * max_steps))
        if warmup_steps + decay_steps > max_steps:
            raise UserError(
                f"scheduler.warmup_steps={warmup_steps} and a decay of {decay_steps} steps exceed the budget of "
                f"{max_steps}: shorten one of them"
            )
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.decay = decay
        self.final_fraction = final_fraction
        self.stable_steps = max_steps - decay_steps
        """Optimizer steps before the decay, warm-up included."""

    def __call__(self, step: int) -> float:
        if step < self.stable_steps:
            return _warmup(step, self.warmup_steps)
        progress = min(1.0, (step - self.stable_steps + 1) / self.decay_steps)
        return 1 - (1 - self.final_fraction) * (math.sqrt(progress) if self.decay == "sqrt" else progress)


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _check_warmup(warmup_steps: int) -> None:
    if warmup_steps < 0:
        raise UserError(f"scheduler.warmup_steps must be 0 or above, not {warmup_steps}")
