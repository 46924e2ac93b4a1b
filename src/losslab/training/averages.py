"""An exponential moving average of a network's weights, in float32, and shard by shard where the network is sharded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from losslab.training.network import Network
from losslab.training.sharding import place, whole


class Averages:
    """Σ d^(k−i) w_i / Σ d^(k−i) over the weights w_1 … w_k that it was shown: those before the first leave no trace, as
    Adam's moments are corrected (Kingma and Ba 2015, arXiv:1412.6980, section 3).

    The loss's buffers, such as a scale that was fitted on val, are those of the averaged weights, too.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._network: Network | None = None
        self._values: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}

    @property
    def follows(self) -> bool:
        """Whether there is a network yet."""
        return self._network is not None

    def follow(self, network: Network) -> None:
        """Begin with the weights of a network, sharded or not, on its device."""
        self._network = network
        self._values = {name: _local(p).detach().float().clone() for name, p in self._parameters().items()}
        self._buffers = {name: buffer.clone() for name, buffer in network.loss.named_buffers()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's weights into the average."""
        self.updates += 1
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        for name, parameter in self._parameters().items():
            self._values[name].lerp_(_local(parameter).float(), share)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages, in the precision of the weights, in the place of the weights."""
        assert self._network is not None
        parameters = self._parameters()
        before = {name: _local(parameter).detach().clone() for name, parameter in parameters.items()}
        self._swap_buffers()
        try:
            _fill(parameters, self._values)
            yield
        finally:
            _reshard(self._network)
            _fill(parameters, before)
            self._swap_buffers()

    def state(self) -> dict[str, Any]:
        """`updates`, and `weights`: whole float32 tensors on the CPU, by the names that a checkpoint has for weights. A
        collective where the network is sharded. On a CPU they are the averages themselves, as in `Module.state_dict`.
        """
        assert self._network is not None
        self._parameters()
        names = {id(parameter): name for name, parameter in self._network.named_parameters()}
        weights: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        for name, value in self._network.state_dict(keep_vars=True).items():
            own = names.get(id(value))
            if own is not None:
                found[own] = found[own] if own in found else _gather(self._values[own], value)
                weights[name] = found[own]
        buffers = {f"loss.{name}": buffer.cpu() for name, buffer in self._buffers.items()}
        return {"updates": self.updates, "weights": weights | {k: v for k, v in buffers.items() if k not in weights}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.updates = state["updates"]
        for name, parameter in self._parameters().items():
            self._values[name] = _local(place(state["weights"][name].float(), parameter)).to(parameter.device).clone()
        for name, buffer in self._buffers.items():
            buffer.copy_(state["weights"][f"loss.{name}"])

    def _parameters(self) -> dict[str, nn.Parameter]:
        assert self._network is not None
        _reshard(self._network)
        return dict(self._network.named_parameters())

    def _swap_buffers(self) -> None:
        assert self._network is not None
        for name, buffer in self._network.loss.named_buffers():
            kept = self._buffers[name].to(buffer.device)
            self._buffers[name] = buffer.clone()
            buffer.copy_(kept)


@torch.no_grad()
def _fill(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        _local(parameter).copy_(values[name])


def _local(tensor: Tensor) -> Tensor:
    """This rank's part of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _reshard(network: nn.Module) -> None:
    """Free what a forward pass has gathered: only shards are read and written, and the next pass gathers them again."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _gather(value: Tensor, like: Tensor) -> Tensor:
    """The whole of a tensor of which this rank holds the part that `like` has of its own."""
    if not isinstance(like, DTensor):
        return value.cpu()
    whole_value: Tensor = whole(
        DTensor.from_local(
            value, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
    )
    return whole_value
