"""Hidden states of a model of which nothing is trained: computed once for each row, however often the row is drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from losslab.errors import UserError
from losslab.training.long_inputs import is_sharded

MOST_BYTES = 2**30
"""Memory for hidden states; rows that come later are computed each time."""


class ConstantRows:
    """A model as training reads it that declares `constant`, with the hidden states that it gave before.

    Each row of a batch with a `mask` is computed alone and without its padding, so that its hidden states are the same
    bit for bit in whatever batch, micro-batch, rank or session it comes. They differ from those of a padded batch by
    rounding. Batches without a `mask` (windows of a text), mixed samples and sharded models are read as ever.

    Args:
        backbone: its hidden states are a function of the inputs alone, which never changes.
        most_bytes: of hidden states that are kept.

    Raises:
        UserError: for a model of which something is trained.
    """

    def __init__(self, backbone: Any, *, most_bytes: int = MOST_BYTES) -> None:
        if trained := sum(parameter.requires_grad for parameter in backbone.parameters()):
            raise UserError(
                f"model: {type(backbone).__name__} declares constant = True, and {trained} of its weights are trained: "
                "leave it out, or freeze them"
            )
        self._backbone = backbone
        self._left = most_bytes
        self._known: dict[bytes, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    @torch.no_grad()
    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs [B, T] → hidden states [B, T, D], 0 in the padding; or [B, D]."""
        lengths = None if is_sharded(self._backbone) else _lengths(inputs)
        if lengths is None:
            hidden: Tensor = self._backbone(inputs)
            return hidden
        rows = [{name: value[i : i + 1, :n] for name, value in inputs.items()} for i, n in enumerate(lengths)]
        found = [self._hidden(row) for row in rows]
        if found[0].ndim == 1:
            return torch.stack(found)
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)

    def _hidden(self, row: dict[str, Tensor]) -> Tensor:
        """[T, D] or [D], of inputs [1, T]."""
        key = b"".join(row[name].cpu().numpy().tobytes() for name in sorted(row) if name != "mask")
        if (known := self._known.get(key)) is not None:
            return known
        hidden: Tensor = self._backbone(row)[0]
        size = hidden.numel() * hidden.element_size()
        if size <= self._left:
            self._left -= size
            self._known[key] = hidden
        return hidden


def _lengths(inputs: dict[str, Tensor]) -> list[int] | None:
    """[B]: positions of each row before its padding; None where inputs are no padded rows with a value a position."""
    mask = inputs.get("mask")
    if mask is None or any(value.shape[:2] != mask.shape for value in inputs.values()):
        return None
    if any(value.is_floating_point() for value in inputs.values()):  # mixed samples; frames, which are large
        return None
    lengths = mask.sum(dim=1)
    places = torch.arange(mask.shape[1], device=mask.device)
    if not torch.equal(mask != 0, places < lengths[:, None]) or not bool(lengths.min()):
        return None
    found: list[int] = lengths.tolist()
    return found
