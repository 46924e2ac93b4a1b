"""Places as classes: every loss that fits computes its formula for as many classes as a sample has places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from losses.cases import CASES, Case
from losslab.contracts import Features, OutputSpec
from losslab.metrics.places import PLACES, choices
from losslab.models.projection import OutputProjection
from losslab.tasks.qa import QuestionAnswering
from losslab.training.fitting import fits

TASK = QuestionAnswering()
FITTING = [case for case in CASES if fits(case.make(), TASK)]
N, T, D = 6, 9, 5


def sample(seed: int = 0) -> tuple[Features, OutputProjection]:
    """Samples with 2 to T places, some of them between others that are none."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(N, T, generator=generator) < 0.6
    places[:, 0] = places[:, 5] = True
    places[0] = True
    target = torch.stack([torch.tensor([0, 5]), *(row.nonzero()[[0, -1], 0] for row in places[1:])])
    hidden = torch.randn(N, T, D, generator=generator)
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5, 1.0])
    extras = {PLACES: places, "unit": torch.arange(N)}
    return Features(hidden, target, weight, extras), OutputProjection(torch.nn.Parameter(hidden[0, :2].clone()))


def by_hand(case: Case, features: Features, weight: Tensor) -> Tensor:
    """Σ weight · ½ (loss of the start + loss of the end), each over the sample's own places."""
    total = torch.zeros((), dtype=torch.float64)
    for i, share in enumerate(features.weight.tolist()):
        own = features.extras[PLACES][i].nonzero()[:, 0]
        logits = (features.hidden[i, own].double() @ weight.double().T).T  # [2, C]
        classes = torch.stack([(own == place).nonzero()[0, 0] for place in features.target[i]])
        total = total + share / 2 * case.reference(logits, classes).sum()
    return total


@pytest.mark.parametrize("case", FITTING, ids=str)
def test_a_loss_is_that_of_as_many_classes_as_there_are_places(case: Case) -> None:
    """With its gradients, against the float64 reference of the loss."""
    features, projection = sample()
    loss = case.make()
    loss.bind(OutputSpec(num_outputs=2, hidden_size=D, generator=torch.Generator()))
    hidden = features.hidden.requires_grad_()
    sums = [loss(part, identity) for part, identity in TASK.choices(features, projection)]
    total, weight = sum(each.total for each in sums), sum(each.weight for each in sums)
    expected = by_hand(case, features, projection.weight)
    torch.testing.assert_close(total.double(), expected, rtol=1e-4, atol=1e-5)
    assert float(weight) == pytest.approx(float(features.weight.sum()))
    found = torch.autograd.grad(total, [hidden, projection.weight])
    wanted = torch.autograd.grad(expected, [hidden, projection.weight])
    if not loss.has_detached:
        for own, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)


def test_the_losses_that_fit_are_those_without_something_for_each_class() -> None:
    names = {case.name for case in FITTING}
    assert names >= {"cross_entropy", "kl_divergence", "focal", "square", "entmax", "brier", "hinge", "stablemax"}
    refused = {case.name for case in CASES if case.loss.target_kind in TASK.accepts} - names
    assert refused >= {"adaptive_softmax", "sampled_softmax", "class_balanced", "logit_adjustment", "harmonic", "coral"}
    assert refused >= {"supervised_contrastive", "distillation", "goldfish", "unlikelihood"}


def test_positions_keep_their_order_and_extras() -> None:
    features, projection = sample()
    seen = []
    for choice in choices(features, projection):
        count = choice.places.shape[1]
        assert choice.features.hidden.shape == (2 * len(choice.rows), count)
        assert choice.features.extras["unit"].tolist() == choice.rows.repeat_interleave(2).tolist()
        chosen = choice.places.repeat_interleave(2, dim=0).gather(1, choice.features.target[:, None])[:, 0]
        assert chosen.view(-1, 2).tolist() == features.target[choice.rows].tolist()
        assert set(choice.features.extras) == {"unit"}
        seen += choice.rows.tolist()
    assert sorted(seen) == list(range(N))
