"""Which parameters decay."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_network import V, make_network
from torch import nn

from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.tasks.lm import LanguageModeling
from losslab.training.network import Network
from losslab.training.optimizers import parameter_groups
from losslab.types import OutputSpec


def names(network: Network) -> tuple[set[str], set[str]]:
    """The names of decaying and of fixed parameters."""
    by_id = {id(parameter): name for name, parameter in network.named_parameters()}
    decaying, fixed = parameter_groups(network)
    assert "weight_decay" not in decaying  # as configured
    assert fixed["weight_decay"] == 0
    return {by_id[id(p)] for p in decaying["params"]}, {by_id[id(p)] for p in fixed["params"]}


@pytest.mark.parametrize(
    ("tied", "positions", "norm"),
    list(itertools.product([True, False], ["rotary", "learned", "sinusoidal"], ["rms", "layer"])),
)
def test_matrices_decay_and_norms_biases_and_embeddings_do_not(tied: bool, positions: str, norm: str) -> None:
    network = make_network(tie_embeddings=tied, positions=positions, norm=norm)
    maps = ("attention.qkv", "attention.output", "mlp.input", "mlp.output")
    expected = {f"backbone.layers.{i}.{name}.weight" for i in range(2) for name in maps}
    if not tied:
        expected.add("projection.weight")
    decaying, fixed = names(network)
    assert decaying == expected
    assert fixed == {name for name, _ in network.named_parameters()} - expected
    assert "backbone.embedding.weight" in fixed


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_exactly_one_group(tied: bool) -> None:
    network = make_network(tie_embeddings=tied, positions="learned")
    grouped = [id(p) for group in parameter_groups(network) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters()}


def test_frozen_parameters_are_in_no_group() -> None:
    network = make_network()
    network.backbone.embedding.weight.requires_grad_(False)
    grouped = {id(p) for group in parameter_groups(network) for p in group["params"]}
    assert id(network.backbone.embedding.weight) not in grouped
    assert len(grouped) == len(list(network.parameters())) - 1


def test_parameters_of_a_loss_decay_where_they_are_matrices() -> None:
    class WithParameters(CrossEntropy):
        def bind(self, spec: OutputSpec) -> None:
            self.prototypes = nn.Parameter(torch.zeros(spec.num_outputs, spec.hidden_size))
            self.margins = nn.Parameter(torch.zeros(spec.num_outputs))

    generator = torch.Generator().manual_seed(0)
    backbone = Decoder(num_layers=1, num_heads=1, width=4, context=4, vocab_size=V, generator=generator)
    network = Network(
        backbone=backbone, loss=WithParameters(), task=LanguageModeling(), num_outputs=V, head_init=generator
    )
    decaying, fixed = names(network)
    assert "loss.prototypes" in decaying
    assert "loss.margins" in fixed


def test_decay_shrinks_only_what_decays() -> None:
    network = make_network(tie_embeddings=False)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(network), lr=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decaying, _ = names(network)
    for name, parameter in network.named_parameters():
        factor = 1 - 0.1 * 0.5 if name in decaying else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])
