"""L1 and L2 penalties of weights: part of the objective, added once an optimizer step, whatever its micro-batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from losslab.config.optimizer_groups import GROUPS, PENALTIES


def penalty_names(node: Mapping[str, Any]) -> list[str]:
    """Penalties that an optimizer's bound node asks for; see `optimizers.own_keys` for its own keys.

    Args:
        node: with keys of the framework alone, and groups.
    """
    groups = node.get(GROUPS, {}).values()
    return [name for name in PENALTIES if node.get(name) or any(group.get(name) for group in groups)]


@torch.no_grad()
def add_penalties(optimizer: Optimizer) -> dict[str, float]:
    """Add the gradients λ sign(w) and 2 λ w to those of the step, where a parameter group has an `l1` or `l2`.

    Call it once all micro-batches and ranks are in the gradients: each rank has the same weights, and adds the same.

    Returns:
        λ Σ |w| and λ Σ w², by name.
    """
    found: dict[str, float] = {}
    for group in optimizer.param_groups:
        for name in PENALTIES:
            if not (weight := group.get(name)):
                continue
            for parameter in group["params"]:
                value = parameter.detach()
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(value)
                if name == "l1":
                    parameter.grad.add_(value.sign(), alpha=weight)
                    size = _whole(value.abs().sum(dtype=torch.float64))
                else:
                    parameter.grad.add_(value, alpha=2 * weight)
                    size = _whole(value.double().square().sum())
                found[name] = found.get(name, 0.0) + weight * size
    return found


def _whole(value: Tensor) -> float:
    """A sum over all shards of a weight, where it has some."""
    return float(value.full_tensor() if hasattr(value, "full_tensor") else value)
