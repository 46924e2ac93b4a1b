"""Sequences longer than the context, read in windows: one hidden state a position, as of shorter ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed

from losslab.contracts import Backbone, Batch, EvalWindows, blocks_of, flat_hidden, reads_back_alone


def reader_of(backbone: Backbone, batch: Batch) -> Backbone:
    """The model as it reads this batch: itself, or in the windows that the batch asks for."""
    return backbone if batch.windows is None else InWindows(backbone, batch.windows)


class InWindows:
    """A model that reads sequences longer than a window in several, and shorter ones as ever.

    Each position's hidden state is taken from one window, that in which it has most context, so that it counts once: of
    a model that reads what stands before a position alone, the first window that reaches it, where most stands before
    it; of other models the one where the smaller of the two numbers of positions before and after it is the largest
    (Devlin et al. 2018, their code for SQuAD), of equal ones the first. A model that returns one hidden state a sample
    gives the mean over its windows, weighted by the positions that are taken from each.

    Args:
        backbone: reads at most `windows.size` positions.
    """

    def __init__(self, backbone: Backbone, windows: EvalWindows) -> None:
        self._backbone = backbone
        self._windows = windows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs [B, L] → hidden states [B, L, D], 0 in the padding; or [B, D].

        Raises:
            UserError: for hidden states of another shape.
        """
        longest = _longest(inputs)
        if longest <= self._windows.size:
            return self._backbone(inputs)
        lengths, device = _lengths(inputs, longest), next(iter(inputs.values())).device
        table = window_table(self._windows, lengths, back_alone=reads_back_alone(self._backbone))
        rows, starts, first, stop = torch.tensor(table, device=device).unbind(1)
        places = starts[:, None] + torch.arange(self._windows.size, device=device)
        taken = (places >= first[:, None]) & (places < stop[:, None])
        shares = (stop - first) / torch.bincount(rows, stop - first)[rows].clamp(min=1)
        found: Tensor | None = None
        at_once = self._at_once(len(rows))
        for part in (slice(i, i + at_once) for i in range(0, len(rows), at_once)):
            hidden = self._backbone(_cut(inputs, rows[part], places[part], longest))
            if hidden.ndim == 2:
                found = hidden.new_zeros(len(lengths), hidden.shape[1]) if found is None else found
                found.index_add_(0, rows[part], hidden * shares[part, None].to(hidden.dtype))
                continue
            flat = flat_hidden(hidden, places[part], self._backbone)
            found = hidden.new_zeros(len(lengths), longest, hidden.shape[2]) if found is None else found
            kept = taken[part]
            found[rows[part, None].expand_as(kept)[kept], places[part][kept]] = flat[kept.flatten()]
        assert found is not None
        return found

    def _at_once(self, count: int) -> int:
        """The windows of one call. A sharded model reads all in one, since every rank has to call it equally often."""
        return count if is_sharded(self._backbone) else self._windows.at_once


def window_table(windows: EvalWindows, lengths: Sequence[int], *, back_alone: bool) -> list[tuple[int, int, int, int]]:
    """[W]: of each window its sequence, where it begins there, and the first and the end of the positions whose hidden
    states are taken from it. Those of a sequence make up all of its positions.

    Args:
        lengths: [B], of each sequence.
        back_alone: the model reads what stands before a position alone.
    """
    table = []
    for row, length in enumerate(lengths):
        starts = windows.starts(length)
        borders = [a + windows.size if back_alone else (a + b + windows.size + 1) // 2 for a, b in pairwise(starts)]
        ends = zip(starts, [0, *borders], [*borders, length], strict=True)
        table += [(row, start, first, stop) for start, first, stop in ends]
    return table


def _longest(inputs: dict[str, Tensor]) -> int:
    """L, padding included."""
    if "mask" in inputs:
        return inputs["mask"].shape[1]
    return max(value.shape[1] for value in inputs.values() if value.ndim > 1)


def _lengths(inputs: dict[str, Tensor], longest: int) -> list[int]:
    """[B]: the place of the last position that is no padding, from 1."""
    if (mask := inputs.get("mask")) is None:
        return [longest] * len(next(iter(inputs.values())))
    places = torch.arange(1, longest + 1, device=mask.device)
    found: list[int] = (places * (mask != 0)).amax(dim=1).tolist()
    return found


def _cut(inputs: dict[str, Tensor], rows: Tensor, places: Tensor, longest: int) -> dict[str, Tensor]:
    """Inputs of windows [W, T]; those without a value for each position are repeated."""
    return {
        name: value[rows[:, None], places] if value.ndim > 1 and value.shape[1] == longest else value[rows]
        for name, value in inputs.items()
    }


def is_sharded(backbone: Any) -> bool:
    """Whether layers of a model are sharded, so that all ranks have to call it equally often."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(layer, FSDPModule) for layer in blocks_of(backbone))
