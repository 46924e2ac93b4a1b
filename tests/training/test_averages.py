"""Averages of weights: against a sum in float64, in half precision, and in the place of the weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_network import make_network

from losslab.errors import UserError
from losslab.tasks.lm import LanguageModeling
from losslab.training.averages import Averages
from losslab.training.ema import EMA, with_averaged

DECAY = 0.9


def step(network: Any, size: float) -> dict[str, torch.Tensor]:
    """Move every weight by noise; returns them in float64."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape).to(parameter.dtype))
    return {name: value.detach().double().clone() for name, value in network.named_parameters()}


def test_averages_are_those_of_a_sum_in_float64() -> None:
    torch.manual_seed(0)
    network = make_network()
    averages = Averages(DECAY)
    averages.follow(network)
    seen = []
    for _ in range(20):
        seen.append(step(network, 0.1))
        averages.update()
    found = averages.state()
    shares = torch.tensor([DECAY ** (19 - i) for i in range(20)], dtype=torch.float64)
    assert found["updates"] == 20
    for name in seen[0]:
        expected = sum(share * weights[name] for share, weights in zip(shares / shares.sum(), seen, strict=True))
        value = found["weights"][name]
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=2e-6)
    assert found["weights"].keys() >= network.state_dict().keys() - dict(network.backbone.named_buffers()).keys()


def test_an_average_at_0_999_of_weights_in_half_precision_moves() -> None:
    torch.manual_seed(0)
    network = make_network().to(torch.bfloat16)
    averages = Averages(0.999)
    averages.follow(network)
    for _ in range(1500):
        averages.update()
    name = "backbone.embedding.weight"
    before = averages.state()["weights"][name].clone()
    step(network, 0.05)
    averages.update()
    after = averages.state()["weights"][name]
    moved = (after - before).abs()
    assert (moved > 0).float().mean() > 0.9
    assert moved.max() < 1e-3, "a thousandth of the step"
    assert (after.bfloat16() == before.bfloat16()).float().mean() > 0.8, "in bf16 nearly all would have stayed"


def test_swapped_weights_come_back_and_buffers_of_the_loss_stay_those_of_each() -> None:
    torch.manual_seed(0)
    network = make_network("square")
    averages = Averages(DECAY)
    averages.follow(network)
    for _ in range(3):
        step(network, 0.1)
        averages.update()
    raw = {name: value.clone() for name, value in network.state_dict().items()}
    with averages.swapped():
        for name, value in network.named_parameters():
            assert torch.equal(value, averages.state()["weights"][name]), name
        for buffer in network.loss.buffers():
            buffer.fill_(7)
    assert {name: value.tolist() for name, value in network.state_dict().items()} == {
        name: value.tolist() for name, value in raw.items()
    }
    kept = averages.state()
    assert all((kept["weights"][f"loss.{name}"] == 7).all() for name, _ in network.loss.named_buffers())
    other = Averages(DECAY)
    other.follow(make_network("square"))
    other.load(kept)
    assert all(torch.equal(value, other.state()["weights"][name]) for name, value in kept["weights"].items())
    assert other.updates == 3


def test_the_callback_updates_every_so_many_optimizer_steps_and_not_within_them() -> None:
    network = make_network()
    callback = EMA(decay=DECAY, every=2)
    callback.averages.follow(network)
    trainer: Any = SimpleNamespace(global_step=0)
    module: Any = SimpleNamespace(network=network)
    updates = []
    for batch in range(12):  # three micro-batches a step
        trainer.global_step = (batch + 1) // 3
        callback.on_train_batch_end(trainer, module, None, None, batch)
        updates.append(callback.averages.updates)
    assert updates == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"decay": -0.1}, {"every": 0}])
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        EMA(**settings)


def test_only_runs_with_averages_declare_their_metrics() -> None:
    metrics, primary = LanguageModeling.metrics, LanguageModeling.primary
    assert with_averaged(metrics, primary, {}) == tuple(metrics)
    declared = {m.name: m for m in with_averaged(metrics, primary, {"x": {"_target_": "losslab.training.ema.EMA"}})}
    averaged = declared[f"ema/{primary}"]
    assert averaged.higher_is_better == declared[primary].higher_is_better
    assert averaged.label == f"{declared[primary].label} of the averaged weights"
    assert {"terminal", "events"} <= averaged.shown
