"""Gradient norms at hidden states against autograd itself."""

from __future__ import annotations

import pytest
import torch
from tiny_network import make_batch, make_network, split
from torch import Tensor

from losslab.contracts import Batch, Features
from losslab.training.gradients import HiddenGradients
from losslab.training.network import Network

NAMES = ["hidden_01", "hidden_02", "hidden_03", "hidden_last"]


@pytest.fixture
def network() -> Network:
    return make_network("kl_divergence", num_layers=3)


@pytest.fixture
def watch(network: Network) -> HiddenGradients:
    watch = HiddenGradients(network.backbone)
    watch.active = True
    return watch


def direct(network: Network, batch: Batch) -> dict[str, Tensor]:
    """The gradient of Σ total at each layer's output, by running the layers one by one."""
    backbone = network.backbone
    states = [backbone.embedding(batch.inputs["tokens"])]
    for layer in backbone.layers:
        states.append(layer(states[-1]))
    states.append(backbone.last_norm(states[-1]))
    features = Features(states[-1].flatten(0, 1), batch.target.flatten(), batch.weight.flatten())
    gradients = torch.autograd.grad(network.loss(features, network.projection).total, states[1:])
    return dict(zip(NAMES, gradients, strict=True))


def test_names_are_those_of_the_layers_and_the_last_norm(watch: HiddenGradients) -> None:
    assert watch.names == NAMES


def test_norms_equal_a_direct_computation(network: Network, watch: HiddenGradients) -> None:
    batch = make_batch()
    network(batch).total.backward()
    norms = watch.finish(factor=0.25, ranks=1)
    expected = {name: 0.25 * gradient.norm().item() for name, gradient in direct(network, batch).items()}
    assert norms == pytest.approx(expected, rel=1e-5)
    assert min(expected.values()) > 1e-3


def test_norms_of_a_step_do_not_depend_on_its_micro_batches(network: Network, watch: HiddenGradients) -> None:
    batch = make_batch()
    network(batch).total.backward()
    whole = watch.finish(factor=1.0, ranks=1)
    for micro in split(batch, 2):
        network(micro).total.backward()
    assert watch.finish(factor=1.0, ranks=1) == pytest.approx(whole, rel=1e-5)


def test_norms_of_a_step_are_forgotten_after_it(network: Network, watch: HiddenGradients) -> None:
    network(make_batch()).total.backward()
    first = watch.finish(factor=1.0, ranks=1)
    network(make_batch()).total.backward()
    assert watch.finish(factor=1.0, ranks=1) == first
    assert watch.finish(factor=1.0, ranks=1) == {}


def test_nothing_is_measured_while_inactive_or_without_a_graph(network: Network, watch: HiddenGradients) -> None:
    with torch.no_grad():
        network(make_batch())
    watch.active = False
    network(make_batch()).total.backward()
    assert watch.finish(factor=1.0, ranks=1) == {}


def test_squares_are_summed_over_ranks(
    network: Network, watch: HiddenGradients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank with the same squares: every norm is √2 times as large."""
    network(make_batch()).total.backward()
    alone = watch.finish(factor=1.0, ranks=1)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda squares: squares.mul_(2))
    network(make_batch()).total.backward()
    assert watch.finish(factor=1.0, ranks=2) == pytest.approx({n: 2**0.5 * norm for n, norm in alone.items()}, rel=1e-6)


def test_watching_changes_no_gradient(network: Network, watch: HiddenGradients) -> None:
    network(make_batch()).total.backward()
    other = make_network("kl_divergence", num_layers=3)
    other(make_batch()).total.backward()
    for watched, plain in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(watched.grad, plain.grad)  # type: ignore[arg-type]
