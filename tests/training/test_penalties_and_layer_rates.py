"""L1 and L2 penalties of parameter groups, and learning rates that fall with depth."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_network import make_network
from torch import nn

from losslab.config.binding import bind_components
from losslab.config.compose import compose_job
from losslab.config.optimizer_groups import LAYER_DECAY
from losslab.config.schema import register
from losslab.errors import UserError
from losslab.training.optimizers import make_optimizer
from losslab.training.penalties import add_penalties
from runs import only_run

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.5}


def by_name(network: nn.Module, key: str, node: dict[str, Any]) -> dict[str, Any]:
    """A setting of each parameter's group."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = make_optimizer(node, network).param_groups
    return {names[id(p)]: group.get(key) for group in groups for p in group["params"]}


def test_rates_fall_by_one_factor_a_layer_from_the_head_to_the_embedding() -> None:
    network = make_network(tie_embeddings=False, positions="learned")
    rates = by_name(network, "lr", {**ADAMW, LAYER_DECAY: 0.5})
    expected = {"projection.weight": 0.1, "backbone.embedding.weight": 0.0125}
    assert {name: rates[name] for name in expected} == pytest.approx(expected)
    for name, rate in rates.items():
        if ".layers." in name:
            assert rate == pytest.approx(0.05 if ".layers.1." in name else 0.025), name
    assert rates.keys() == {name for name, _ in network.named_parameters()}
    norm = next(name for name in rates if "norm" in name and ".layers." not in name)
    assert rates[norm] == pytest.approx(0.1)


def test_a_schedule_and_groups_keep_the_shares() -> None:
    network = make_network(tie_embeddings=True)
    node = {**ADAMW, LAYER_DECAY: 0.5, "groups": {"embedding": {"lr": 0.8}}}
    optimizer = make_optimizer(node, network)
    assert by_name(network, "lr", node)["backbone.embedding.weight"] == pytest.approx(0.8 * 0.125)
    before = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.25 * lr for lr in before])
    assert schedule.base_lrs == pytest.approx(before)


def test_a_model_without_layers_is_told_to_list_them() -> None:
    network = nn.ModuleDict({"backbone": nn.Linear(2, 2), "projection": nn.Linear(2, 2)})
    with pytest.raises(UserError, match="model=Linear lists none: give it blocks"):
        make_optimizer({**ADAMW, LAYER_DECAY: 0.9}, network)


def test_penalties_are_those_of_weights_that_decay_and_of_whole_groups() -> None:
    network = make_network(tie_embeddings=False)
    node = {**ADAMW, "l1": 0.1, "groups": {"embedding": {"l2": 0.3, "l1": 0.0}}}
    l1, l2 = by_name(network, "l1", node), by_name(network, "l2", node)
    decays = {name for name, p in network.named_parameters() if p.ndim == 2 and "embedding" not in name}
    assert {name for name, value in l1.items() if value} == decays
    assert {name for name, value in l2.items() if value} == {"backbone.embedding.weight"}


def test_the_gradient_and_value_of_both_penalties() -> None:
    weight, other = nn.Parameter(torch.tensor([[1.0, -2.0, 0.0]])), nn.Parameter(torch.tensor([3.0]))
    weight.grad = torch.tensor([[0.5, 0.5, 0.5]])
    groups = [{"params": [weight], "l1": 0.1, "l2": 0.2}, {"params": [other]}]
    found = add_penalties(torch.optim.SGD(groups, lr=0.1))
    assert found == pytest.approx({"l1": 0.1 * 3, "l2": 0.2 * 5})
    torch.testing.assert_close(weight.grad, torch.tensor([[0.5 + 0.1 + 0.4, 0.5 - 0.1 - 0.8, 0.5]]))
    assert other.grad is None


def test_a_run_logs_them_and_they_are_one_step_s_whatever_the_split(run_tiny: Callable[..., int]) -> None:
    words = [
        "optimizer.l1=1e-3",
        "+optimizer.groups.embedding.l2=1e-2",
        "trainer.max_steps=2",
        "trainer.log_every_n_steps=1",
    ]
    rows = []
    for name, more in (("whole", "trainer.micro_batch_size=4"), ("split", "trainer.accumulate_grad_batches=4")):
        assert run_tiny(f"name={name}", more, "trainer.val_check_interval=2", *words) == 0
        run, _ = only_run(Path("outputs") / name)
        rows.append(list(csv.DictReader((run / "metrics.csv").read_text().splitlines())))
    for whole, split in zip(*rows, strict=True):
        for column in ("train/objective", "train/objective/l1", "train/objective/l2"):
            if whole[column]:
                assert float(whole[column]) == pytest.approx(float(split[column]), rel=1e-6)
    assert float(rows[0][0]["train/objective/l2"]) > 0


def settled(*words: str) -> dict[str, Any]:
    register()
    return bind_components(compose_job(list(words))[0])["optimizer"]


def test_keys_that_change_nothing_leave_no_trace_and_wrong_ones_are_refused() -> None:
    assert settled("optimizer.l1=0.0", "optimizer.layer_decay=1.0") == settled()
    assert "l1" not in settled()
    assert settled("optimizer.l2=1e-4")["l2"] == 1e-4
    with pytest.raises(UserError, match=r"optimizer.l1 must be 0 or above.*layer_decay must be above 0 and at most 1"):
        settled("optimizer.l1=-1", "optimizer.layer_decay=1.5")
