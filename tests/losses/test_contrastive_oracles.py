"""Supervised contrastive + cross-entropy against the published formula, sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from problems import bound
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.regularizers import Regularized
from losslab.losses.supervised_contrastive import SupervisedContrastive, contrastive
from losslab.models.projection import OutputProjection
from losslab.training.factory import _check_split


def reference(hidden: Tensor, target: list[int], tau: float) -> list[Tensor]:
    """Khosla et al., L_out: a sum over positives outside of the logarithm."""
    unit = [h / h.square().sum().sqrt() for h in hidden]
    rows = []
    for i, own in enumerate(unit):
        others = sum(((own * unit[k]).sum() / tau).exp() for k in range(len(unit)) if k != i)
        positives = [j for j in range(len(unit)) if j != i and target[j] == target[i]]
        terms = [-(((own * unit[j]).sum() / tau).exp() / others).log() for j in positives]
        rows.append(sum(terms, torch.zeros((), dtype=hidden.dtype)) / max(1, len(positives)))
    return rows


def test_both_terms_and_their_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 6, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(7, 6, dtype=torch.float64, generator=generator).requires_grad_()
    target = [0, 1, 0, 2, 2, 2, 5, 1, 0]
    counts = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    features = Features(hidden.float(), torch.tensor(target), counts)
    result = bound(SupervisedContrastive(share=0.25, tau=0.5))(features, OutputProjection(weight.float()))
    kept = [i for i in range(9) if counts[i]]
    contrast = torch.stack(reference(hidden[kept], [target[i] for i in kept], 0.5))
    own = F.cross_entropy(hidden[kept] @ weight.T, torch.tensor(target)[kept], reduction="none")
    expected = (counts[kept] * (0.75 * own + 0.25 * contrast)).sum()
    assert result.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert result.weight.item() == 8.5
    assert result.terms["contrastive"].item() == pytest.approx(0.25 * (counts[kept] * contrast).sum().item(), rel=1e-5)
    for got, wanted in zip(
        torch.autograd.grad(result.total, [hidden, weight]),
        torch.autograd.grad(expected, [hidden, weight]),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_batch_without_positives_has_none_of_the_second_term() -> None:
    hidden = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    value = contrastive(hidden, torch.arange(4), 0.3)
    assert torch.equal(value, torch.zeros(4))
    assert torch.autograd.grad(value.sum(), hidden)[0].abs().max() == 0
    alone = contrastive(hidden[:1], torch.zeros(1, dtype=torch.int64), 0.3)
    assert torch.equal(alone, torch.zeros(1)) and math.isfinite(alone.sum().item())


def test_an_evaluation_is_the_same_in_any_batches() -> None:
    loss = bound(SupervisedContrastive()).eval()
    hidden = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    features, projection = Features(hidden, torch.arange(8) % 2, torch.ones(8)), OutputProjection(torch.randn(7, 6))
    parts = sum(loss(part, projection).total for part in features.chunks(3))
    assert parts.item() == pytest.approx(loss(features, projection).total.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SupervisedContrastive(share=1.0), "loss.share"),
        (lambda: SupervisedContrastive(tau=0.0), "loss.tau"),
        (lambda: Regularized(SupervisedContrastive(), z_loss=0.1), "regularizers join"),
    ],
)
def test_what_cannot_be_is_refused(make: type[Loss], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make()


@pytest.mark.parametrize("trainer", [{"accumulate_grad_batches": 2}, {"devices": 2}, {"micro_batch_size": 4}, {}])
def test_its_batch_is_not_split(trainer: dict[str, int]) -> None:
    whole = {"accumulate_grad_batches": None, "devices": 1, "num_nodes": 1, "micro_batch_size": None}
    config = {"trainer": whole | trainer, "data": {"batch_size": 8}}
    if not trainer:
        return _check_split(SupervisedContrastive(), config)
    with pytest.raises(UserError, match="this batch is split into 2"):
        _check_split(SupervisedContrastive(), config)
