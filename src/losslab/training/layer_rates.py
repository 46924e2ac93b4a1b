"""Learning rates that fall from the output to the input, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from losslab.choices import chosen
from losslab.contracts import blocks_of
from losslab.errors import UserError

SHARE = "share"
"""Key of a parameter group: its learning rate as a share of the optimizer's."""


def layers_of(network: nn.Module, roles: Mapping[str, str]) -> dict[int, int]:
    """How many layers stand above each parameter, by its id: 0 for the output projection, the parameters of a loss and
    the final norm; i for the i-th of L blocks from the top; L + 1 for embeddings and what was made before the blocks.

    Args:
        roles: name of each parameter → its role.

    Raises:
        UserError: for a model that lists no blocks.
    """
    backbone = network.get_submodule("backbone")
    blocks = blocks_of(backbone)
    if not blocks:
        raise UserError(
            f"optimizer.layer_decay needs the layers of the model, and {chosen('model', backbone)} lists none: give it "
            "blocks(), or leave layer_decay out"
        )
    inside = {id(p): len(blocks) - i for i, block in enumerate(blocks) for p in block.parameters()}
    found, above = dict(inside), len(blocks) + 1
    for name, parameter in network.named_parameters():
        if id(parameter) in inside:
            above = 0
        else:
            found[id(parameter)] = len(blocks) + 1 if roles[name] == "embedding" else above
    return found


def by_layer(parts: list[dict[str, Any]], layers: Mapping[int, int], decay: float) -> list[dict[str, Any]]:
    """Parameter groups, each split by layer, from the top; with the share decay^(layers above) of the learning rate."""
    found = []
    for part in parts:
        above = [layers[id(parameter)] for parameter in part["params"]]
        for depth in sorted(set(above)):
            chosen = [p for p, own in zip(part["params"], above, strict=True) if own == depth]
            found.append({**part, "params": chosen, SHARE: decay**depth})
    return found


def scale_rates(optimizer: Optimizer) -> Optimizer:
    """Multiply the learning rate of each group by its share, before a schedule takes it up."""
    for group in optimizer.param_groups:
        if (share := group.get(SHARE, 1.0)) != 1:
            if "lr" not in group:
                raise UserError(f"optimizer.layer_decay: {type(optimizer).__name__} has no learning rate")
            group["lr"] = group["lr"] * share
    return optimizer
