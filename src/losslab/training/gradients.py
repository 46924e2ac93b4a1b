"""Gradient norms where the gradient passes the hidden states: whether it vanishes or explodes on its way down."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


class HiddenGradients:
    """Squared norms of the gradient at each layer's output and at the last norm, summed over a step's micro-batches.

    Args:
        backbone: its `layers` and `last_norm` are watched.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.active = False
        self.names: list[str] = []
        self._squares: dict[str, Tensor] = {}
        layers = backbone.get_submodule("layers")
        for i, layer in enumerate(layers.children(), start=1):
            self._watch(layer, f"hidden_{i:02d}")
        self._watch(backbone.get_submodule("last_norm"), "hidden_last")

    def _watch(self, module: nn.Module, name: str) -> None:
        self.names.append(name)

        def on_forward(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            if self.active and output.requires_grad:
                output.register_hook(on_backward)  # type: ignore[no-untyped-call]

        def on_backward(gradient: Tensor) -> None:
            square = gradient.detach().float().square().sum()
            self._squares[name] = self._squares[name] + square if name in self._squares else square

        module.register_forward_hook(on_forward)

    def finish(self, factor: float, ranks: int) -> dict[str, float]:
        """The norms of the step that ends, each multiplied by `factor`, over all ranks; and forget them."""
        if not self._squares:
            return {}
        names = sorted(self._squares)
        squares = torch.stack([self._squares[name] for name in names])
        self._squares = {}
        if ranks > 1:
            distributed.all_reduce(squares)
        return {name: factor * square**0.5 for name, square in zip(names, squares.tolist(), strict=True)}
