"""Fused steps on a CPU: where they are taken, and that they are those of the plain optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from losslab.config.binding import bind_components
from losslab.config.check import check_run
from losslab.config.compose import compose_plain
from losslab.training.optimizers import make_optimizer

ADAMW: dict[str, Any] = {"_target_": "torch.optim.AdamW", "lr": 1e-2, "weight_decay": 0.1}
NODES: dict[str, dict[str, Any]] = {
    "adamw": ADAMW,
    "adam": {"_target_": "torch.optim.Adam", "lr": 1e-2},
    "sgd": {"_target_": "torch.optim.SGD", "lr": 1e-2, "momentum": 0.9, "nesterov": True},
}


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))})


def _trained(node: dict[str, Any], *, fuse: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = _network()
    optimizer = make_optimizer(node, network, fuse=fuse)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        network["backbone"](torch.randn(4, 5, generator=generator)).square().sum().backward()  # type: ignore[index]
        optimizer.step()
        optimizer.zero_grad()
    return network, optimizer


@pytest.mark.parametrize("name", NODES)
def test_a_fused_step_is_the_plain_one(name: str) -> None:
    (fused, optimizer), (plain, _) = _trained(NODES[name], fuse=True), _trained(NODES[name], fuse=False)
    assert all(group["fused"] for group in optimizer.param_groups)
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("words", [[], ["optimizer=adam"], ["optimizer=sgd"]])
def test_runs_take_fused_steps(words: list[str]) -> None:
    node = bind_components(check_run(compose_plain(["data=text", "data.path=x.txt", *words])))["optimizer"]
    optimizer = make_optimizer(node, _network(), fuse=True)
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("words", [{"foreach": True}, {"fused": False}, {"_target_": "torch.optim.Adadelta"}])
def test_what_a_person_chose_stays(words: dict[str, Any]) -> None:
    optimizer = make_optimizer(ADAMW | words, _network(), fuse=True)
    assert not any(group.get("fused") for group in optimizer.param_groups)


def test_weights_of_lower_precision_take_plain_steps() -> None:
    optimizer = make_optimizer(ADAMW, _network().bfloat16(), fuse=True)
    assert not any(group["fused"] for group in optimizer.param_groups)


def test_a_checkpoint_of_plain_steps_goes_on_with_them() -> None:
    _, plain = _trained(ADAMW, fuse=False)
    optimizer = make_optimizer(ADAMW, _network(), fuse=True)
    optimizer.load_state_dict(plain.state_dict())
    assert not any(group["fused"] for group in optimizer.param_groups)
