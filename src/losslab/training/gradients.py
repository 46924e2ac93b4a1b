"""Gradient norms where the gradient passes the hidden states: whether it vanishes or explodes on its way down."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from losslab.contracts import blocks_of


class HiddenGradients:
    """Squared norms of the gradient at the output of each layer and of the whole backbone, summed over a step's
    micro-batches.

    Args:
        backbone: its `blocks`, if it has any, and its own output are watched.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.active = False
        self.names: list[str] = []
        self._squares: dict[str, Tensor] = {}
        for i, layer in enumerate(blocks_of(backbone), start=1):
            self._watch(layer, f"hidden_{i:02d}")
        self._watch(backbone, "hidden_last")

    def _watch(self, module: nn.Module, name: str) -> None:
        self.names.append(name)

        def on_forward(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            hidden = (
                output[0] if isinstance(output, tuple) and output else output
            )  # recurrent layers return their state
            if self.active and isinstance(hidden, Tensor) and hidden.requires_grad:
                hidden.register_hook(on_backward)  # type: ignore[no-untyped-call]

        def on_backward(gradient: Tensor) -> None:
            square = gradient.detach().float().square().sum()
            self._squares[name] = self._squares[name] + square if name in self._squares else square

        module.register_forward_hook(on_forward)

    def finish(self, factor: float, ranks: int) -> dict[str, float]:
        """Return the norms of the step that ends, each multiplied by `factor`, over all ranks, and drop them."""
        if not self._squares:
            return {}
        names = sorted(self._squares)
        squares = torch.stack([self._squares[name] for name in names])
        self._squares = {}
        if ranks > 1:
            distributed.all_reduce(squares)
        return {name: factor * square**0.5 for name, square in zip(names, squares.tolist(), strict=True)}
