"""Every loss of the catalogue on the device, in three precisions, against float64 on the CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from cases import CASES, SEQUENCE_CASES, Case
from problems import bound, problem_for
from torch import Tensor

from gpu_checks.tools import Sizes, Table
from losslab.contracts import Features
from losslab.models.projection import OutputProjection

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Relative, of the sum and of the gradient in the hidden states; float64 sees the same rounded inputs."""

KINKED = ("hinge",)
"""Losses whose gradient jumps where two logits meet, as rounded ones do; in half precision their value counts."""


def losses_equal_float64(sizes: Sizes) -> list[Table]:
    """The value and the gradient in the hidden states; the worst case of each loss."""
    table = Table(["loss", *(str(dtype).removeprefix("torch.") for dtype in TOLERANCE)])
    worst: dict[str, list[float]] = {}
    for case in (*CASES, *SEQUENCE_CASES):
        for column, (dtype, tolerance) in enumerate(TOLERANCE.items()):
            try:
                error = _error(case, dtype, sizes)
            except Exception as fault:  # of one loss: the others are to be tried
                table.wrong.append(f"{case} in {dtype}: {type(fault).__name__}: {str(fault).splitlines()[0]}")
                error = math.nan
            worst.setdefault(case.name, [0.0] * len(TOLERANCE))
            worst[case.name][column] = max(worst[case.name][column], error)
            if error > tolerance:
                table.wrong.append(f"{case} in {dtype} is off by {error:.1e}, more than {tolerance:.0e}")
    table.rows = [[name, *errors] for name, errors in sorted(worst.items())]
    table.note = (
        f"Largest relative error of value and gradient over {sizes.loss_positions} positions and each loss's variants; "
        f"of {', '.join(KINKED)}, whose gradient jumps, in half precision that of the value."
    )
    return [table]


def _error(case: Case, dtype: torch.dtype, sizes: Sizes) -> float:
    features, weight = problem_for(case, sizes.loss_positions)
    hidden = (features.hidden / 2).to(dtype)
    weight = weight.to(dtype)
    value, gradient = _ours(case, features, hidden, weight, sizes.device)
    exact_value, exact_gradient = _exact(case, features, hidden.double(), weight.double())
    of_value = abs(value - exact_value) / max(abs(exact_value), 1e-3)
    if case.name in KINKED and dtype != torch.float32:
        return float(of_value)
    of_gradient = (gradient - exact_gradient).norm() / exact_gradient.norm().clamp(min=1e-3)
    return max(float(of_value), float(of_gradient))


def _ours(case: Case, features: Features, hidden: Tensor, weight: Tensor, device: str) -> tuple[float, Tensor]:
    loss = bound(case).to(device)
    leaf = hidden.to(device).requires_grad_()
    own = replace(
        features,
        hidden=leaf,
        target=_single(features.target, device),
        weight=_single(features.weight, device),
        extras={name: _single(value, device) for name, value in features.extras.items()},
        lengths=None if features.lengths is None else features.lengths.to(device),
    )
    total = loss(own, OutputProjection(weight.to(device).requires_grad_())).total
    (gradient,) = torch.autograd.grad(total, leaf)
    return total.item(), gradient.double().cpu()


def _exact(case: Case, features: Features, hidden: Tensor, weight: Tensor) -> tuple[float, Tensor]:
    """The row's own reference, in float64."""
    own = bound(case).select(replace(features, hidden=hidden.requires_grad_())).kept()
    total = (own.weight * case.values(case.scores(own.hidden, weight, None), own)).sum()
    (gradient,) = torch.autograd.grad(total, hidden)
    return total.item(), gradient


def _single(tensor: Tensor, device: str) -> Tensor:
    return (tensor.float() if tensor.is_floating_point() else tensor).to(device)
