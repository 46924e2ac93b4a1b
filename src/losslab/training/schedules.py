"""Learning-rate schedules: step → factor of the peak learning rate. Steps are optimizer steps."""

from __future__ import annotations

import math

from losslab.errors import UserError


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
