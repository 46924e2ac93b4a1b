"""CORAL: its thresholds, its link, and the order of the labels."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from losslab.contracts import DataInfo, Features, OutputSpec
from losslab.errors import UserError
from losslab.losses.brier import Brier
from losslab.losses.coral import Coral
from losslab.losses.regularizers import Regularized
from losslab.losses.sum import Sum
from losslab.models.projection import OutputProjection


def for_labels(loss: Coral, labels: tuple[str, ...] | None, size: int = 4) -> Coral:
    loss.bind(OutputSpec(1, 3, torch.Generator(), size=size, labels=labels))
    return loss


def test_it_is_the_sum_of_binary_cross_entropies_at_the_thresholds() -> None:
    """Also of thresholds that training has moved, which count in descending order."""
    loss = for_labels(Coral(), None)
    with torch.no_grad():
        loss.biases.copy_(torch.tensor([0.5, 2.0, -1.0]))
    score = torch.linspace(-3, 3, 8, dtype=torch.float64)[:, None]
    target = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    thresholds = score + torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)
    above = (target[:, None] > torch.arange(3)).double()
    expected = F.binary_cross_entropy_with_logits(thresholds, above, reduction="none").sum(dim=-1)
    torch.testing.assert_close(loss.position_loss(loss.map_logits(score), target), expected, rtol=1e-10, atol=1e-12)
    p = loss.map_logits(score).exp()
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(8, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(1 - p.cumsum(dim=-1)[:, :-1], thresholds.sigmoid(), rtol=1e-10, atol=1e-12)


def test_thresholds_are_trained_with_the_projection() -> None:
    loss = for_labels(Coral(), None)
    hidden = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.nn.Parameter(torch.randn(1, 3, generator=torch.Generator().manual_seed(1)))
    features = Features(hidden, torch.arange(12) % 4, torch.ones(12))
    total = loss(features, OutputProjection(weight)).total
    found = torch.autograd.grad(total, [hidden, weight, loss.biases])
    thresholds = (hidden @ weight.T + loss.biases).double()
    above = (features.target[:, None] > torch.arange(3)).double()
    expected = F.binary_cross_entropy_with_logits(thresholds, above, reduction="sum")
    for own, reference in zip(found, torch.autograd.grad(expected, [hidden, weight, loss.biases]), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-5, atol=1e-6)


def test_it_begins_with_every_class_alike_and_equal_thresholds_stay_finite() -> None:
    loss = for_labels(Coral(), None, size=5)
    torch.testing.assert_close(loss.map_logits(torch.zeros(1, 1)).exp(), torch.full((1, 5), 0.2))
    with torch.no_grad():
        loss.biases.fill_(0.0)
    assert loss.map_logits(torch.tensor([[-50.0], [0.0], [1e4]])).isfinite().all()


def test_extreme_scores_have_the_slope_of_ordinary_ones() -> None:
    loss = for_labels(Coral(), None)
    score = torch.tensor([[-2000.0]]).requires_grad_()
    value = loss.position_loss(loss.map_logits(score), torch.tensor([3])).sum()
    assert value.item() == pytest.approx(6000, rel=1e-3)
    assert torch.autograd.grad(value, score)[0].item() == pytest.approx(-3.0, rel=1e-3)


@pytest.mark.parametrize(
    ("order", "labels", "rank"),
    [
        (None, ("1", "10", "2", "3.5"), [0, 3, 1, 2]),
        (["bad", "fair", "good", "superb"], ("bad", "good", "superb", "fair"), [0, 2, 3, 1]),
        (None, None, [0, 1, 2, 3]),
    ],
)
def test_classes_are_ordered_by_numbers_or_as_a_person_says(
    order: list[str] | None, labels: tuple[str, ...] | None, rank: list[int]
) -> None:
    loss = for_labels(Coral(order=order), labels)
    assert loss.rank.tolist() == rank
    p = loss.map_logits(torch.tensor([[30.0]])).exp()[0]
    assert p.argmax().item() == rank.index(3)
    values = loss.position_loss(loss.map_logits(torch.tensor([[30.0]] * 4)), torch.arange(4))
    assert values.argsort(descending=True).tolist() == [rank.index(i) for i in range(4)]


@pytest.mark.parametrize(
    ("order", "labels", "said"),
    [
        (None, ("bad", "good", "fair", "poor"), r"needs the order of the labels.*loss.order=\[bad,good,fair,poor\]"),
        (["a", "b", "c"], ("a", "b", "c", "d"), "lacks the label d"),
        (["a", "b", "c", "d", "e"], ("a", "b", "c", "d"), "names a label that train lacks: e"),
        (["a", "b", "c", "d"], None, "these classes have none"),
    ],
)
def test_an_order_that_cannot_be_is_refused(order: list[str] | None, labels: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        for_labels(Coral(order=order), labels)


def test_what_it_does_not_go_with_is_refused() -> None:
    with pytest.raises(UserError, match="twice"):
        Coral(order=["a", "a"])
    with pytest.raises(UserError, match="two classes or more"):
        for_labels(Coral(), None, size=1)
    with pytest.raises(UserError, match="outputs of its own"):
        Sum(first=Coral(), second=Brier())
    assert Regularized(Coral(), confidence_penalty=0.1).num_outputs(5) == 1


def test_the_names_of_classes_come_from_the_data_s_artifact() -> None:
    def info(columns: dict[str, list[str]]) -> DataInfo:
        return DataInfo(splits={}, mean_positions=1, artifacts={"labels.json": json.dumps(columns)})

    assert info({"label": ["low", "high"]}).labels == ("low", "high")
    assert info({"a": ["x"], "b": ["y"]}).labels is None
    assert DataInfo(splits={}, mean_positions=1).labels is None
