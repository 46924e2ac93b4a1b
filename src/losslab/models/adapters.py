"""Adapters for modules that know nothing of losslab: they take token ids, and return hidden states or logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from losslab.errors import UserError
from losslab.models.projection import OutputProjection


class HiddenStatesAdapter(nn.Module):
    """A module that maps one tensor to hidden states [B, T, D], or [B, D].

    In a yaml, `module` is a node of its own, with a `_target_`; in Python, a subclass builds it and calls
    `super().__init__(module=…, width=…)`.

    Args:
        module: called with one positional argument.
        width: D, the size of the hidden states that it returns.
        input: name of the input of the batch that it reads.
        output: where it returns more than a tensor: name of the attribute or key of the hidden states, such as
            `last_hidden_state`. Default: the tensor, or the first entry of a tuple.

    Raises:
        UserError: for a module that is none, or a width that is not above 0.
    """

    def __init__(self, *, module: nn.Module, width: int, input: str = "tokens", output: str | None = None) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise UserError(f"model.module must be a torch.nn.Module with a _target_ of its own, not {module!r}")
        if width <= 0:
            raise UserError(f"model.width must be above 0, not {width}")
        self.module = module
        self.width = width
        self.input = input
        self.output = output

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Run the module on the input of its name → [B, T, D]."""
        return self._pick(self.module(inputs[self.input]))

    def _pick(self, returned: Any) -> Tensor:
        name = type(self.module).__name__
        if self.output is not None:
            keyed = isinstance(returned, dict) and self.output in returned
            returned = returned[self.output] if keyed else getattr(returned, self.output, None)
            if returned is None:
                raise UserError(f"model.output={self.output} names nothing that {name} returns")
        elif isinstance(returned, tuple):
            returned = returned[0]
        if not isinstance(returned, Tensor):
            raise UserError(
                f"{name} returns a {type(returned).__name__}, not a tensor: model.output=NAME says which of its "
                "attributes or keys the output is"
            )
        return returned


class LogitsAdapter(HiddenStatesAdapter):
    """A module that maps one tensor to logits [B, T, V], split where its output layer begins.

    The output layer is replaced by the identity, so that the module returns hidden states, and its weight [V, D] and
    bias become the output projection: the loss computes the logits itself, some positions at a time. A weight that is
    tied to an embedding stays tied.

    Args:
        module: called with one positional argument.
        head: dotted name of its output layer, an nn.Linear: `lm_head`.
        input, output: see `HiddenStatesAdapter`.

    Raises:
        UserError: where `head` names no nn.Linear of the module.
    """

    def __init__(self, *, module: nn.Module, head: str, input: str = "tokens", output: str | None = None) -> None:
        layer = _layer(module, head)
        super().__init__(module=module, width=layer.in_features, input=input, output=output)
        module.set_submodule(head, nn.Identity())
        # A tuple, which registers nothing: its weights are saved once, as those of the network's projection.
        self._head = (layer,)

    def output_projection(self, num_outputs: int, generator: torch.Generator) -> OutputProjection:
        """The projection that the output layer was; its size is the module's own."""
        (layer,) = self._head
        return OutputProjection(layer.weight, layer.bias)


def _layer(module: nn.Module, head: str) -> nn.Linear:
    if not isinstance(module, nn.Module):
        raise UserError(f"model.module must be a torch.nn.Module with a _target_ of its own, not {module!r}")
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    if head not in layers:
        there = ", ".join(layers) or "none"
        raise UserError(f"model.head={head} is no nn.Linear of {type(module).__name__}; it has {there}")
    return layers[head]
