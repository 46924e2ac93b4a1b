"""Weights from counts, and the asymmetric loss of labels, against closed forms and published numbers."""

from __future__ import annotations

import pytest
import torch
from problems import bound
from torch import Tensor

from losslab.config.identity import loss_label
from losslab.contracts import Features, OutputSpec
from losslab.errors import UserError
from losslab.losses.asymmetric import Asymmetric
from losslab.losses.base import Loss
from losslab.losses.binary_cross_entropy import BinaryCrossEntropy
from losslab.losses.class_balanced import ClassBalanced
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.focal import Focal
from losslab.losses.logit_adjustment import LogitAdjustment
from losslab.losses.regularizers import Regularized
from losslab.losses.square import Square

COUNTS = torch.tensor([1000.0, 100.0, 10.0, 0.0], dtype=torch.float64)


def of_counts(loss: Loss, counts: Tensor = COUNTS) -> Loss:
    loss.bind(OutputSpec(len(counts), 3, torch.Generator(), class_counts=counts))
    return loss


def smallest(loss: Loss, eta: float) -> Tensor:
    """The logit [1, 1] of the smallest expected loss of a label of probability η, by bisection of the slope."""
    low, high = torch.tensor([[-40.0]], dtype=torch.float64), torch.tensor([[40.0]], dtype=torch.float64)
    for _ in range(100):
        z = ((low + high) / 2).requires_grad_()
        present, absent = (loss.position_loss(z, torch.full((1, 1), y, dtype=torch.float64)) for y in (1.0, 0.0))
        (slope,) = torch.autograd.grad((eta * present + (1 - eta) * absent).sum(), z)
        low, high = (low, z.detach()) if slope > 0 else (z.detach(), high)
    return low


@pytest.mark.parametrize("options", [{}, {"clip": 0.0}, {"gamma_positive": 1.0, "gamma_negative": 2.0}])
@pytest.mark.parametrize("eta", [0.05, 0.4, 0.7])
def test_posterior_of_a_label_is_its_probability_at_the_minimum(options: dict[str, float], eta: float) -> None:
    loss = Asymmetric(**options)
    assert loss.posterior(smallest(loss, eta)).item() == pytest.approx(eta, abs=1e-6)
    assert not loss.is_proper


def test_asymmetric_switched_off_is_binary_cross_entropy() -> None:
    logits = torch.linspace(-30, 30, 50, dtype=torch.float64).reshape(10, 5)
    target = (torch.arange(50).reshape(10, 5) % 3 == 0).double()
    plain = Asymmetric(gamma_positive=0.0, gamma_negative=0.0, clip=0.0)
    torch.testing.assert_close(
        plain.position_loss(logits, target), BinaryCrossEntropy().position_loss(logits, target), rtol=1e-12, atol=0
    )
    assert plain.is_proper
    torch.testing.assert_close(plain.posterior(logits), logits.sigmoid())


def test_an_absent_label_below_the_clip_costs_nothing_and_moves_nothing() -> None:
    logits = torch.logit(torch.tensor([[0.01, 0.049, 0.06]], dtype=torch.float64)).requires_grad_()
    value = Asymmetric().position_loss(logits, torch.zeros(1, 3))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert (gradient[0] != 0).tolist() == [False, False, True]


def test_weights_are_inverse_effective_numbers_and_sum_to_the_number_of_classes() -> None:
    """E_n = (1 − β^n) / (1 − β): 1 sample is 1, and infinitely many are 1 / (1 − β)."""
    loss = of_counts(ClassBalanced(inner=CrossEntropy(), beta=0.99))
    effective = torch.tensor([(1 - 0.99**n) / 0.01 for n in (1000, 100, 10, 1)], dtype=torch.float64)
    expected = 4 / effective / (1 / effective).sum()
    torch.testing.assert_close(loss.class_weight.double(), expected, rtol=1e-6, atol=0)
    near_one = of_counts(ClassBalanced(inner=CrossEntropy(), beta=1 - 1e-9)).class_weight
    torch.testing.assert_close(near_one[1] / near_one[0], torch.tensor(10.0), rtol=1e-4, atol=0)


def test_equal_weights_are_the_loss_inside() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = Features(logits, torch.tensor([0, 1, 2, 3, 0, 1]), torch.ones(6))
    loss = of_counts(ClassBalanced(inner=Focal(), beta=0.0))
    assert torch.equal(loss.from_logits(logits, features), Focal().from_logits(logits, features))
    assert of_counts(ClassBalanced(inner=CrossEntropy(), beta=0.0)).is_proper
    assert not of_counts(ClassBalanced(inner=CrossEntropy(), beta=0.9)).is_proper


def test_weights_come_back_with_a_checkpoint_where_there_are_no_counts() -> None:
    trained = of_counts(ClassBalanced(inner=LogitAdjustment()))
    restored = ClassBalanced(inner=LogitAdjustment())
    restored.bind(OutputSpec(4, 3, torch.Generator()))
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(restored.class_weight, trained.class_weight)
    assert trained.class_weight[3] > trained.class_weight[0]


def test_penalties_join_it_as_means_over_positions() -> None:
    assert bound(Regularized(ClassBalanced(inner=CrossEntropy()), z_loss=0.1)).reads_step


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Asymmetric(gamma_positive=-1.0), "gamma_positive"),
        (lambda: Asymmetric(gamma_negative=float("inf")), "gamma_negative"),
        (lambda: Asymmetric(clip=1.0), "loss.clip"),
        (lambda: ClassBalanced(inner=CrossEntropy(), beta=1.0), "loss.beta"),
        (lambda: ClassBalanced(inner=CrossEntropy(), beta=-0.1), "loss.beta"),
        (lambda: ClassBalanced(inner="focal"), "loss.inner must be a loss"),  # type: ignore[arg-type]
        (lambda: ClassBalanced(inner=BinaryCrossEntropy()), "needs labels as targets"),
        (lambda: ClassBalanced(inner=ClassBalanced(inner=Square())), "weighs twice"),
    ],
)
def test_what_cannot_be_weighed_is_refused(make: type[Loss], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make()


def test_a_run_is_named_after_the_weights_and_the_loss_inside() -> None:
    assert loss_label({"loss": "class_balanced", "loss@loss.inner": "focal"}) == "class_balanced+focal"
    assert loss_label({"loss": "sum", "loss@loss.first": "focal", "loss@loss.second": "brier"}) == "focal+brier"
    assert loss_label({"loss": "focal"}) == "focal"
