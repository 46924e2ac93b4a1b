"""Which parameters decay."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
import torch
from tiny_network import INFO, V, make_network
from torch import nn

from losslab.contracts import OutputSpec
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.tasks.lm import LanguageModeling
from losslab.training.network import Network
from losslab.training.optimizers import make_optimizer, parameter_roles

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.5}
MUON = {"_target_": "torch.optim.Muon", "momentum": 0.9}


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    return make_optimizer(ADAMW, network).param_groups


def names(network: Network) -> tuple[set[str], set[str]]:
    """The names of decaying and of fixed parameters."""
    by_id = {id(parameter): name for name, parameter in network.named_parameters()}
    decaying, fixed = parameter_groups(network)
    assert decaying["weight_decay"] == 0.5  # as configured
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
    network = Network(backbone=backbone, loss=WithParameters(), task=LanguageModeling(), info=INFO, head_init=generator)
    decaying, fixed = names(network)
    assert "loss.prototypes" in decaying
    assert "loss.margins" in fixed


def test_decay_shrinks_only_what_decays() -> None:
    network = make_network(tie_embeddings=False)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = make_optimizer(ADAMW, network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decaying, _ = names(network)
    for name, parameter in network.named_parameters():
        factor = 1 - 0.1 * 0.5 if name in decaying else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def by_group(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, set[str]]:
    """Name of each group → the names of its parameters."""
    by_id = {id(parameter): name for name, parameter in network.named_parameters()}
    found: dict[str, set[str]] = {}
    for group in optimizer.param_groups:
        found.setdefault(group.get("name", ""), set()).update(by_id[id(p)] for p in group["params"])
    return found


def test_every_role_is_found() -> None:
    network = make_network(tie_embeddings=False, positions="learned", norm="layer")
    network.loss.register_parameter("prototypes", nn.Parameter(torch.zeros(2, 3)))
    roles = parameter_roles(network)
    assert roles["backbone.embedding.weight"] == roles["backbone.positions.weight"] == "embedding"
    assert roles["backbone.layers.0.attention_norm.weight"] == roles["backbone.last_norm.bias"] == "norm"
    assert roles["backbone.layers.1.mlp.input.weight"] == "matrix"
    assert roles["backbone.layers.1.mlp.input.bias"] == "bias"
    assert roles["projection.weight"] == "head"
    assert roles["loss.prototypes"] == "loss"
    assert parameter_roles(make_network(tie_embeddings=True))["backbone.embedding.weight"] == "embedding"


def test_a_group_has_settings_of_its_own_and_a_pattern_comes_before_a_role() -> None:
    network = make_network(tie_embeddings=False)
    groups = {
        "embedding": {"lr": 0.01},
        "matrix": {"weight_decay": 0.25},
        "first": {"match": ["backbone.layers.0.*"], "lr": 0.001},
    }
    optimizer = make_optimizer(ADAMW | {"groups": groups}, network)
    assert isinstance(optimizer, torch.optim.AdamW)
    found = by_group(optimizer, network)
    assert found["embedding"] == {"backbone.embedding.weight"}
    assert found["first"] == {name for name, _ in network.named_parameters() if name.startswith("backbone.layers.0.")}
    assert all(name.startswith("backbone.layers.1.") for name in found["matrix"])
    settings = {(g.get("name", ""), g["lr"], g["weight_decay"]) for g in optimizer.param_groups if g["params"]}
    assert settings == {
        ("", 0.1, 0.5),  # the head
        ("", 0.1, 0.0),  # norms
        ("embedding", 0.01, 0.0),
        ("matrix", 0.1, 0.25),
        ("first", 0.001, 0.5),
        ("first", 0.001, 0.0),
    }


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"head": {"lr": 1.0}}, "optimizer.groups.head matches no parameter"),
        ({"a": {"match": "backbone.*"}, "b": {"match": "*.weight"}}, "a and b both claim backbone.embedding.weight"),
        ({"all": {"match": "backbone.*"}, "matrix": {}}, "matrix matches only parameters that other groups"),
        ({"a": {"match": "norm"}, "norm": {}}, "a and norm both claim"),
        ({"embedding": MUON, "norm": MUON}, "Muon takes matrices alone, .* shape .*optimizer.groups.matrix"),
    ],
)
def test_groups_that_cannot_be_meant_are_refused(groups: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_optimizer(ADAMW | {"groups": groups}, make_network(tie_embeddings=True))


def test_an_optimizer_of_matrices_alone_is_told_where_it_belongs() -> None:
    with pytest.raises(UserError, match="optimizer: Muon takes matrices alone"):
        make_optimizer({"_target_": "torch.optim.Muon", "lr": 0.1}, make_network())


def test_a_group_of_the_loss_may_be_empty_for_losses_differ_in_parameters() -> None:
    network = make_network()
    optimizer = make_optimizer(ADAMW | {"groups": {"loss": {"lr": 1.0}, "margins": {"match": "loss.*"}}}, network)
    assert by_group(optimizer, network).keys() == {""}


def gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_two_optimizers_together_step_as_each_of_them_alone() -> None:
    together, alone = make_network(tie_embeddings=False), make_network(tie_embeddings=False)
    combined = make_optimizer(ADAMW | {"groups": {"matrix": MUON | {"lr": 0.02}}}, together)
    roles = parameter_roles(alone)
    matrices = [p for name, p in alone.named_parameters() if roles[name] == "matrix"]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.5, momentum=0.9)  # the decay is inherited
    head = [p for name, p in alone.named_parameters() if roles[name] == "head"]
    fixed = [p for name, p in alone.named_parameters() if roles[name] in ("norm", "embedding", "bias")]
    adamw = torch.optim.AdamW([{"params": head}, {"params": fixed, "weight_decay": 0.0}], lr=0.1, weight_decay=0.5)
    for step in range(3):
        gradients(together, step)
        gradients(alone, step)
        combined.step()
        muon.step()
        adamw.step()
    for (name, ours), theirs in zip(together.named_parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_two_optimizers_together_continue_from_their_state_bit_for_bit() -> None:
    node = ADAMW | {"groups": {"matrix": MUON}}

    def run(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            gradients(network, step)
            optimizer.step()

    undisturbed = make_network()
    run(undisturbed, make_optimizer(node, undisturbed), range(4))
    first = make_network()
    optimizer = make_optimizer(node, first)
    run(first, optimizer, range(2))
    file = io.BytesIO()
    torch.save([first.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    second = make_network()
    second.load_state_dict(weights)
    optimizer = make_optimizer(node, second)
    optimizer.load_state_dict(state)
    run(second, optimizer, range(2, 4))
    for (name, ours), theirs in zip(second.named_parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_closure_is_evaluated_once_for_all_optimizers() -> None:
    network = make_network()
    gradients(network, 0)
    calls = []

    def closure() -> float:
        assert torch.is_grad_enabled()
        calls.append(1)
        return 2.5

    assert make_optimizer(ADAMW | {"groups": {"matrix": MUON}}, network).step(closure) == 2.5
    assert calls == [1]
