"""Adaptive softmax against torch's, and sampled softmax against its limit and its expectation over all samples."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from problems import bound, problem_for
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.conformance.basics import AllDouble
from losslab.conformance.subject import single
from losslab.contracts import Features, OutputSpec
from losslab.errors import UserError
from losslab.losses.adaptive_softmax import AdaptiveSoftmax
from losslab.losses.base import Loss
from losslab.losses.class_balanced import ClassBalanced
from losslab.losses.execution import LinearMap
from losslab.losses.regularizers import Regularized
from losslab.losses.sampled_softmax import SampledSoftmax, _inclusion
from losslab.models.projection import OutputProjection

V, D, CUTS = 40, 32, [8, 20]


def counted(loss: Loss, counts: Tensor, width: int = D) -> Loss:
    size = len(counts)
    loss.bind(OutputSpec(loss.num_outputs(size), width, torch.Generator().manual_seed(2), counts.double(), size=size))
    return loss


@pytest.fixture
def adaptive() -> tuple[AdaptiveSoftmax, nn.AdaptiveLogSoftmaxWithLoss, Tensor]:
    """Ours, torch's with the same weights in float64, and the class of each rank: frequencies are in no order."""
    order = torch.randperm(V, generator=torch.Generator().manual_seed(1))
    counts = torch.zeros(V).scatter(0, order, torch.arange(V, 0, -1).float())
    ours = counted(AdaptiveSoftmax(cutoffs=CUTS), counts)
    assert isinstance(ours, AdaptiveSoftmax)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(D, V, CUTS, div_value=4.0, dtype=torch.float64)
    for i, (narrow, wide) in enumerate(zip(ours.narrow, ours.wide, strict=True)):
        theirs.tail[i][0].weight.data.copy_(narrow.data)
        theirs.tail[i][1].weight.data.copy_(wide.data)
    return ours, theirs, order


def test_adaptive_softmax_is_torch_s_with_the_ids_of_frequency(
    adaptive: tuple[AdaptiveSoftmax, nn.AdaptiveLogSoftmaxWithLoss, Tensor],
) -> None:
    ours, theirs, order = adaptive
    hidden = torch.randn(60, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    rank = torch.arange(60) % V
    projection = theirs.head.weight
    with AllDouble():
        values = ours.values(Features(hidden, order[rank], torch.ones(60)), LinearMap(projection, None))
        log_p = ours.scores(hidden, LinearMap(projection, None))
    torch.testing.assert_close(values, -theirs(hidden, rank).output, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(log_p[:, order], theirs.log_prob(hidden), rtol=1e-10, atol=1e-12)
    for own, reference in zip(
        torch.autograd.grad(values.sum(), [hidden, projection]),
        torch.autograd.grad(-theirs(hidden, rank).output.sum(), [hidden, projection]),
        strict=True,
    ):
        torch.testing.assert_close(own, reference, rtol=1e-10, atol=1e-12)


def test_weights_of_the_clusters_have_the_gradients_of_torch_s(
    adaptive: tuple[AdaptiveSoftmax, nn.AdaptiveLogSoftmaxWithLoss, Tensor],
) -> None:
    ours, theirs, order = adaptive
    hidden, rank = torch.randn(60, D, generator=torch.Generator().manual_seed(3)), torch.arange(60) % V
    ours(Features(hidden, order[rank], torch.ones(60)), LinearMap(theirs.head.weight.float(), None)).total.backward()
    (-theirs(hidden.double(), rank).output.sum()).backward()
    for i in range(2):
        for own, reference in ((ours.narrow[i], theirs.tail[i][0]), (ours.wide[i], theirs.tail[i][1])):
            torch.testing.assert_close(own.grad.double(), reference.weight.grad, rtol=2e-4, atol=1e-5)


def test_counts_order_the_classes_and_a_checkpoint_keeps_the_order() -> None:
    trained = counted(AdaptiveSoftmax(), torch.tensor([1.0, 9.0, 5.0, 7.0]))
    assert trained.rank.tolist() == [3, 0, 2, 1]
    restored = AdaptiveSoftmax()
    restored.bind(OutputSpec(restored.num_outputs(4), D, torch.Generator(), size=4))
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(restored.rank, trained.rank)
    assert [AdaptiveSoftmax()._cuts(size) for size in (1, 2, 7, 100)] == [[1], [1, 2], [1, 2, 7], [10, 40, 100]]


def test_inclusions_sum_to_the_number_of_samples_and_follow_the_proposal() -> None:
    q = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    pi = _inclusion(q / q.sum(), 2)
    assert pi.sum().item() == pytest.approx(2, abs=1e-9)
    assert (torch.log1p(-pi) / torch.log1p(-pi[-1])).tolist() == pytest.approx(q.tolist())
    counts = torch.tensor([3.0, 300.0, 30.0, 0.0])
    zipf = counted(SampledSoftmax(samples=2), counts).inclusion.double()
    shares = [math.log((r + 2) / (r + 1)) for r in (2, 0, 1, 3)]
    ratios = torch.log1p(-zipf) / torch.log1p(-zipf[0])
    assert ratios.tolist() == pytest.approx([share / shares[0] for share in shares], rel=1e-4)
    unigram = torch.log1p(-counted(SampledSoftmax(samples=2, proposal="unigram"), counts).inclusion.double())
    assert (unigram / unigram[3]).tolist() == pytest.approx([4, 301, 31, 1], rel=1e-2)


def given(loss: SampledSoftmax, sample: list[int]) -> SampledSoftmax:
    loss.sample = torch.tensor(sample, dtype=torch.int64)
    return loss


def test_over_all_samples_the_smallest_expected_loss_predicts_the_data() -> None:
    """Exactly, for any number of samples: the gradient of the expectation is 0 where softmax(z) is η."""
    eta = torch.tensor([0.5, 0.3, 0.15, 0.05])
    loss = counted(SampledSoftmax(samples=2), torch.tensor([40.0, 30.0, 20.0, 10.0]), width=4)
    weight = torch.eye(4).requires_grad_()
    hidden = eta.log().expand(4, 4)
    gradient = torch.zeros(4, 4)
    pi, size = loss.inclusion, []
    for joined in product([False, True], repeat=4):
        chance = torch.where(torch.tensor(joined), pi, 1 - pi).prod()
        sample = [j for j in range(4) if joined[j]]
        total = given(loss, sample)(Features(hidden, torch.arange(4), eta), LinearMap(weight, None)).total
        gradient += chance * torch.autograd.grad(total, weight)[0]
        size.append(float(chance))
    assert sum(size) == pytest.approx(1, abs=1e-6)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_among_the_sample_are_those_of_autograd(bias: bool) -> None:
    loss = bound(SampledSoftmax(samples=3))
    assert isinstance(loss, SampledSoftmax)
    given(loss, [1, 2, 5])
    drawn, weight = problem_for(loss, 30)
    features = single(drawn)
    leaves = [features.hidden.requires_grad_(), weight.float().requires_grad_()]
    leaves += [torch.linspace(-1, 1, len(weight)).requires_grad_()] if bias else []
    total = loss(features, OutputProjection(*leaves[1:])).total
    corrected = (F.linear(*leaves) - loss.inclusion.log()).double()
    rows = []
    for z, y in zip(corrected, features.target.tolist(), strict=True):
        rows.append(z[sorted({1, 2, 5, y})].logsumexp(dim=0) - z[y])
    expected = (features.weight * torch.stack(rows)).sum()
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    for own, reference in zip(torch.autograd.grad(total, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-5)


def test_an_evaluation_is_cross_entropy_and_a_draw_is_that_of_its_stream() -> None:
    loss = bound(SampledSoftmax(samples=2))
    drawn, weight = problem_for(loss, 20)
    features, projection = single(drawn), OutputProjection(weight.float())
    expected = F.cross_entropy(F.linear(features.hidden, weight.float()), features.target, reduction="none")
    assert loss.eval()(features, projection).total.item() == pytest.approx((features.weight * expected).sum().item())
    samples = []
    for seed in (1, 1, 2):
        loss.draw(torch.Generator().manual_seed(seed))
        samples.append(loss.sample.tolist())
    assert samples[0] == samples[1] != samples[2]
    assert given(loss.train(), [])(features, projection).total.item() == 0


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: AdaptiveSoftmax(cutoffs=[]), "loss.cutoffs"),
        (lambda: AdaptiveSoftmax(cutoffs=[5, 5]), "loss.cutoffs"),
        (lambda: AdaptiveSoftmax(cutoffs=[10]).num_outputs(10), "there are 10 classes"),
        (lambda: AdaptiveSoftmax(reduction=0.5), "loss.reduction"),
        (lambda: AdaptiveSoftmax().bind(OutputSpec(7, 4, torch.Generator())), "needs 3 outputs for 7 classes"),
        (lambda: SampledSoftmax(samples=0), "loss.samples"),
        (lambda: Regularized(SampledSoftmax(), z_loss=0.1), "regularizers join"),
        (lambda: ClassBalanced(inner=SampledSoftmax()), "products of its own"),
        (lambda: ClassBalanced(inner=AdaptiveSoftmax()), "products of its own"),
    ],
)
def test_what_cannot_be_is_refused(make: type[Loss], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make()
