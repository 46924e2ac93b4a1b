"""The trial of models on packed windows: the documents of a window are read apart."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from losslab.errors import Fault
from losslab.training.trial.model import ModelTrial, evaluating, forward, run, same

SEGMENTS = "segments"
_PROBE = 16
"""Positions that a large model is tried with."""
_CURE = "read inputs['segments'] (the number of each position's document in its window), or leave data.packing=stream"


def documents_apart(trial: ModelTrial, *, large: bool = False) -> str:
    """In a window of two documents, neither changes the other's hidden states, and each has those that it has at the
    beginning of a window.

    Args:
        large: try one instance, as it is, with a few positions.

    Raises:
        Fault: for a model that does not read `segments`.
    """
    if SEGMENTS not in trial.inputs:
        return "this data does not tell documents apart"
    shape = trial.inputs[SEGMENTS].shape
    length = min(shape[1], _PROBE) if large else shape[1]
    if length < 2:
        return "a window has one position"
    inputs = {name: value[:, :length] if value.shape[:2] == shape else value for name, value in trial.inputs.items()}
    if large:
        with evaluating(trial) as model:
            return _compare(inputs, lambda given: forward(model, given))
    fresh = trial.fresh()
    return _compare(inputs, lambda given: run(fresh, given))


def _compare(inputs: dict[str, Tensor], read: Callable[[dict[str, Tensor]], Tensor]) -> str:
    places = inputs[SEGMENTS].shape
    half = places[1] // 2
    segments = (torch.arange(places[1]) >= half).long().expand(places)
    moving = [name for name, value in inputs.items() if value.shape[:2] == places and name not in (SEGMENTS, "mask")]

    def window(edit: slice | None = None, *, swapped: bool = False) -> Tensor:
        given = inputs | {SEGMENTS: segments}
        for name in moving:
            given[name] = value = inputs[name].clone()
            if edit is not None:
                value[:, edit] = value.roll(1, 0)[:, edit]
            if swapped:
                given[name] = torch.cat([value[:, half:], value[:, :half]], dim=1)
        if swapped:
            given[SEGMENTS] = segments.flip(1).sub(1).abs()
        return read(given)

    first, second = slice(0, half), slice(half, None)
    whole = window()
    if whole.ndim < len(places) + 1:
        raise Fault(f"packed windows need a hidden state for each position, and it gives {list(whole.shape)}")
    for edit, other in ((first, second), (second, first)):
        if not same(window(edit)[:, other], whole[:, other]):
            raise Fault(f"in a window of two documents one changes the hidden states of the other: {_CURE}")
    if not same(window(swapped=True)[:, : places[1] - half], whole[:, second]):
        raise Fault(
            "the second document of a window has other hidden states than at the beginning of one: positions (or a "
            f"state) must begin again with it; {_CURE}"
        )
    return "neither of two documents changes the other"
