"""Positions, targets and a projection for any row of `cases.py`, and its loss bound to them."""

from __future__ import annotations

import torch
from cases import NUM_OUTPUTS, NUM_VALUES, Case
from torch import Tensor

from losslab.conformance.subject import Problem, Subject
from losslab.contracts import Features, TargetKind
from losslab.losses.base import Loss

WIDTH = 6


def bound(loss: Loss | Case, width: int = WIDTH) -> Loss:
    """For the sizes of these tests, and the same each time."""
    loss = loss.make() if isinstance(loss, Case) else loss
    return Subject(loss).fresh(NUM_VALUES if loss.target_kind is TargetKind.VALUES else NUM_OUTPUTS, width)


def problem_for(loss: Loss | Case, positions: int) -> tuple[Features, Tensor]:
    """Float64 features with ragged weights (0, ½, 1, 2), and a weight [V, D]; both without gradient."""
    loss = loss.make() if isinstance(loss, Case) else loss
    size = NUM_VALUES if loss.target_kind is TargetKind.VALUES else NUM_OUTPUTS
    problem = Problem.random(loss, positions=positions, size=size)
    return problem.features, problem.projection


def wrong_targets(loss: Loss) -> list[tuple[Tensor, str]]:
    """Two targets of another kind or out of range, each with what is said of it."""
    two_rows = torch.tensor([[2.0] * NUM_OUTPUTS, [0.0] * NUM_OUTPUTS])
    if loss.target_kind is TargetKind.CLASSES:
        return [
            (torch.tensor([0, NUM_OUTPUTS]), f"target {NUM_OUTPUTS} is no class: there are {NUM_OUTPUTS}, from 0 to"),
            (torch.tensor([-100, 1]), "target -100 is no class.*weight 0"),
            (torch.tensor([0.0, 1.0]), "int64.*float32"),
            (torch.zeros(2, NUM_OUTPUTS), r"int64.*shape \[2, 7\]"),
        ]
    if loss.target_kind is TargetKind.VALUES:
        return [
            (torch.tensor([0.0, 1.0]), r"float \[N, K\].*shape \[2\]"),
            (torch.zeros(2, NUM_VALUES, dtype=torch.int64), "values.*int64"),
            (torch.zeros(2, NUM_VALUES + 1), "3 values a position"),
        ]
    return [
        (torch.tensor([0, 1]), r"number for each class.*int64"),
        (torch.zeros(2, NUM_OUTPUTS + 1), r"float \[N, 7\].*shape \[2, 8\]"),
        (two_rows, r"lie in \[0, 1\], and here from 0 to 2"),
        *([(two_rows / 4, "sum to 1, and here.* 0 to 3.5")] if loss.target_kind is TargetKind.DISTRIBUTIONS else []),
    ]
