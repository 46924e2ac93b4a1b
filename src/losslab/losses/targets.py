"""Refuse targets that are not what a loss expects, in a sentence; classes in the form that it expects.

On a GPU their values are not looked at, which would wait for it; CUDA stops by itself at a class that does not exist.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features, TargetKind
from losslab.errors import UserError
from losslab.losses.contract import TargetedLoss

_ROUNDING = 0.01
"""Rounding of the sum of many bfloat16 probabilities."""


def check_targets(target: Tensor, loss: TargetedLoss, num_outputs: int) -> None:
    """Raises UserError for targets of the wrong type, shape or range, where the projection has `num_outputs`."""
    _CHECKS[loss.target_kind](target, num_outputs)
    if loss.target_kind is TargetKind.VALUES and loss.num_outputs(target.shape[1]) != num_outputs:
        raise UserError(
            f"{type(loss).__name__} needs {loss.num_outputs(target.shape[1])} outputs for targets of {target.shape[1]} "
            f"values a position, and the projection has {num_outputs}"
        )


def in_kind(features: Features, kind: TargetKind, size: int) -> Features:
    """Classes as what a loss of distributions or labels expects: all of the weight on the one that holds. They stay in
    `extras["class"]`, for the metrics; other targets stay as they are."""
    if kind not in (TargetKind.DISTRIBUTIONS, TargetKind.LABELS) or features.target.is_floating_point():
        return features
    shares = F.one_hot(features.target, size).float()
    return replace(features, target=shares, extras={**features.extras, "class": features.target})


def check_classes(target: Tensor, num_outputs: int) -> None:
    """Raises UserError for targets that are no classes of 0 … `num_outputs` - 1."""
    if target.ndim != 1 or target.dtype != torch.int64:
        raise UserError(f"targets must be int64 [N] classes, not {target.dtype} of shape {list(target.shape)}")
    if target.device.type == "cpu" and len(target):
        low, high = (int(value) for value in target.aminmax())
        if low < 0 or high >= num_outputs:
            wrong = low if low < 0 else high
            raise UserError(
                f"target {wrong} is no class: there are {num_outputs:,}, from 0 to {num_outputs - 1:,}; positions to "
                "ignore have weight 0"
            )


def _check_shares(target: Tensor, num_outputs: int) -> None:
    if target.ndim != 2 or target.shape[1] != num_outputs or not target.is_floating_point():
        raise UserError(
            f"targets must be a float [N, {num_outputs:,}], a number for each class, not {target.dtype} of shape "
            f"{list(target.shape)}"
        )
    if target.device.type == "cpu" and target.numel():
        low, high = (float(value) for value in target.aminmax())
        if not (low >= 0 and high <= 1):
            raise UserError(f"targets of classes must lie in [0, 1], and here from {low:g} to {high:g}")


def _check_distributions(target: Tensor, num_outputs: int) -> None:
    _check_shares(target, num_outputs)
    if target.device.type == "cpu" and target.numel():
        low, high = (float(value) for value in target.sum(dim=-1).aminmax())
        if not (low > 1 - _ROUNDING and high < 1 + _ROUNDING):
            raise UserError(f"a target distribution must sum to 1, and here the sums are {low:.4g} to {high:.4g}")


def _check_values(target: Tensor, num_outputs: int) -> None:
    if target.ndim != 2 or not target.is_floating_point():
        raise UserError(
            f"targets must be float [N, K] values, K of them a position, not {target.dtype} of shape "
            f"{list(target.shape)}"
        )


def _check_sequences(target: Tensor, num_outputs: int) -> None:
    if target.ndim != 2 or target.dtype != torch.int64:
        raise UserError(
            f"targets must be int64 [S, U], a sequence of classes a row, not {target.dtype} of shape "
            f"{list(target.shape)}"
        )
    if target.device.type == "cpu" and target.numel():
        check_classes(target[target >= 0], num_outputs)
        if bool(((target[:, :-1] < 0) & (target[:, 1:] >= 0)).any()) or int(target.min()) < -1:
            raise UserError("a target sequence must be classes from its beginning on, and −1 behind the last")


_CHECKS = {
    TargetKind.CLASSES: check_classes,
    TargetKind.DISTRIBUTIONS: _check_distributions,
    TargetKind.LABELS: _check_shares,
    TargetKind.VALUES: _check_values,
    TargetKind.SEQUENCES: _check_sequences,
}
