"""The network that binds backbone, projection and loss together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_network import CONTEXT, INFO, V, make_batch, make_network

from losslab.contracts import Features, LossSum, OutputSpec
from losslab.losses.base import Loss, Projection
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.decoder import Decoder
from losslab.tasks.lm import LanguageModeling
from losslab.training.network import Network


@pytest.mark.parametrize("tied", [True, False])
def test_flops_count_the_projection_whether_or_not_it_is_tied(tied: bool) -> None:
    """Its weight is [11, 8]."""
    network = make_network(tie_embeddings=tied)
    assert network.flops_per_position(INFO) == network.backbone.flops_per_sample() / CONTEXT + 6 * 11 * 8


def test_samples_that_fill_a_part_of_the_context_cost_that_part_of_its_flops() -> None:
    network = make_network()
    whole, half = (network.flops_per_position(replace(INFO, mean_share=share)) for share in (1.0, 0.5))
    assert whole is not None and half is not None
    assert whole - half == network.backbone.flops_per_sample() / CONTEXT / 2


def test_an_observer_sees_the_features_in_place_of_the_loss() -> None:
    network, batch = make_network(), make_batch()
    seen: list[Features] = []

    def observe(features: Features, loss: Loss, projection: Projection) -> LossSum:
        assert loss is network.loss
        assert projection is network.projection
        seen.append(features)
        return LossSum(torch.zeros(()), torch.zeros(()))

    assert network(batch, observe).total == 0
    features = seen[0]
    assert torch.equal(features.hidden, network.backbone(batch.inputs).reshape(-1, 8))
    for flat, shaped in [(features.target, batch.target), (features.weight, batch.weight)]:
        assert torch.equal(flat.reshape(shaped.shape), shaped)
    assert {name: value.tolist() for name, value in features.extras.items()} == {
        name: value.flatten().tolist() for name, value in batch.extras.items()
    }


def test_the_loss_learns_the_sizes_once_and_draws_after_the_projection() -> None:
    class Bound(CrossEntropy):
        def bind(self, spec: OutputSpec) -> None:
            self.seen = (spec.num_outputs, spec.hidden_size, torch.rand(3, generator=spec.generator))

    def network(*, tied: bool) -> Network:
        backbone = Decoder(num_layers=1, num_heads=1, width=4, context=4, vocab_size=V, tie_embeddings=tied)
        head_init = torch.Generator().manual_seed(1)
        return Network(backbone=backbone, loss=Bound(), task=LanguageModeling(), info=INFO, head_init=head_init)

    num_outputs, hidden_size, drawn = network(tied=True).loss.seen
    assert (num_outputs, hidden_size) == (V, 4)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(network(tied=False).loss.seen[2], drawn)
