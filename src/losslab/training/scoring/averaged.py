"""Averages of the weights that `callbacks=ema` keeps, in checkpoints and exports, and the choice between them and the
weights themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from losslab.config.nearest import nearest
from losslab.errors import UserError
from losslab.metric import AVERAGED
from losslab.training.ema import KEY

AVERAGES = "ema.safetensors"
"""The file of an export beside the weights."""
CHOICES = ("raw", "ema")


class Averaged(NamedTuple):
    """Averages by the names of the weights."""

    weights: dict[str, Tensor]
    """float32."""
    scale: float
    """s of softmax(s · z), as it was fitted for them."""
    shift: float = 0.0
    """b of σ(s · z + b), likewise."""


def averaged_in(content: Mapping[str, Any]) -> Averaged | None:
    """The averages in a checkpoint; None where its run kept none."""
    if content.get(KEY) is None:
        return None
    latest = content["losslab"].get("latest", {})
    scale, shift = latest.get(f"val/{AVERAGED}scale", 1.0), latest.get(f"val/{AVERAGED}shift", 0.0)
    return Averaged(content[KEY]["weights"], scale, shift)


def choose(
    choice: str, weights: dict[str, Tensor], fitted: tuple[float, float], averaged: Averaged | None, path: Path
) -> tuple[dict[str, Tensor], float, float]:
    """Weights, and the scale and shift that were fitted for them: `raw` as they are, or `ema`, in the precision in
    which the run scored them.

    Raises:
        UserError: for another choice, and where there are no averages.
    """
    if choice not in CHOICES:
        raise UserError(f"weights cannot be {choice!r}: {nearest(choice, CHOICES)}")
    if choice == "raw":
        return weights, *fitted
    if averaged is None:
        raise UserError(f"{path} holds no averages of the weights: its run was trained without callbacks=ema")
    return (
        {
            **weights,
            **{name: value.to(weights[name].dtype) for name, value in averaged.weights.items() if name in weights},
        },
        averaged.scale,
        averaged.shift,
    )


def told(choice: str, averaged: Averaged | None) -> str | None:
    """A sentence for people that says of which of both weights a prediction is; None for a run with one kind."""
    if averaged is None:
        return None
    if choice == "ema":
        return "predictions are those of the averages that callbacks=ema kept"
    return "predictions are those of the weights themselves; --weights ema takes the averages that callbacks=ema kept"
