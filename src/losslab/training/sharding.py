"""FSDP2 (Zhao et al. 2023, arXiv:2304.11277): parameters, gradients and optimizer states shared out among the ranks.

Checkpoints are those of every other strategy, whole tensors in one file, so that a run can continue under any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.export import register_dataclass
from torch.optim import Optimizer

from losslab.contracts import LossSum, PenaltySum, blocks_of
from losslab.training.network import Network

register_dataclass(PenaltySum)
register_dataclass(LossSum)  # fully_shard finds the outputs to hook only in containers that it supports


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with whole checkpoints. `strategy="fsdp"` would be FSDP1, which refuses a CPU.

    Args:
        ranks: devices × nodes, all of them one data-parallel group.
    """

    lightning_restore_optimizer = True  # through `load_optimizer_state_dict`; the parent has its own way at load

    def __init__(self, ranks: int) -> None:
        super().__init__(data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def shard(self, network: Network) -> None:
        """Each layer is a group of its own; embedding, projection and loss are the root's, whose forward uses them."""
        mesh = self.device_mesh["data_parallel"]
        for layer in blocks_of(network.backbone):
            fully_shard(layer, mesh=mesh)
        fully_shard(network, mesh=mesh)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        state: dict[str, Any] = whole(self.lightning_module.state_dict())
        return state

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = whole(optimizer.state_dict())
        return state

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        load_weights(self.lightning_module, checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            # A state's tensors are numbered as the parameters stand in the groups.
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            values = {i: _shard_like(parameters[i], entry) for i, entry in state["state"].items()}
            optimizer.load_state_dict({**state, "state": values})


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put whole tensors into a module, sharded or not."""
    own = module.state_dict()
    module.load_state_dict({name: place(value, own.get(name)) for name, value in state.items()})


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients together, over all ranks: a scalar on their device."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def all_finite(module: nn.Module) -> bool:
    """Whether this rank's part of the weights holds neither NaN nor infinity."""
    local = (p.to_local() if isinstance(p, DTensor) else p for p in module.parameters())
    return all(bool(torch.isfinite(part).all()) for part in local)


def whole(node: Any) -> Any:
    """Every shard gathered, on the CPU; a collective, so that all ranks call it."""
    if isinstance(node, DTensor):
        return node.full_tensor().cpu()
    if isinstance(node, Mapping):
        return {key: whole(value) for key, value in node.items()}
    return [whole(value) for value in node] if isinstance(node, list) else node


def place(value: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor):
        return value
    # Each rank has read the whole file: nothing needs to be sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _shard_like(parameter: Tensor, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        key: place(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value
        for key, value in entry.items()
    }
