"""Identities and closed forms that pin each loss from outside."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from cases import CASES, CLASS_WEIGHTS, NUM_OUTPUTS, Case
from torch import Tensor

from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.square import Square
from losslab.types import OutputSpec

ETA = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)

softmax_cases = pytest.mark.parametrize("case", [case for case in CASES if case.is_softmax], ids=str)


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(20, NUM_OUTPUTS, dtype=torch.float64, generator=generator)


@pytest.fixture
def target() -> Tensor:
    return torch.randint(NUM_OUTPUTS, (20,), generator=torch.Generator().manual_seed(1))


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(loss.position_loss(leaf, target).sum(), leaf)[0]


def minimiser(expected_loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Newton's method from 0; softmax losses leave one direction free, which the pseudo-inverse does not move in."""
    z = torch.zeros(len(ETA), dtype=torch.float64)
    for _ in range(30):
        slope = torch.autograd.functional.jacobian(expected_loss, z)
        z = z - torch.linalg.pinv(torch.autograd.functional.hessian(expected_loss, z), rtol=1e-10) @ slope
    assert torch.autograd.functional.jacobian(expected_loss, z).abs().max() < 1e-10
    return z


def test_cross_entropy_under_nine_to_one_is_minus_log_of_nine_tenths() -> None:
    logits = torch.tensor([[0.9, 0.1]], dtype=torch.float64).log()
    value = CrossEntropy().position_loss(logits, torch.tensor([0])).item()
    assert value == pytest.approx(0.10536, abs=5e-6)
    assert value == pytest.approx(-math.log(0.9), rel=1e-12)


def test_square_loss_of_a_hand_worked_row() -> None:
    """(1/3) [15 (28 − 30)² + 1² + 2²] = 65/3."""
    value = Square().position_loss(torch.tensor([[28.0, 1.0, -2.0]]), torch.tensor([0]))
    assert value.item() == pytest.approx(65 / 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_cross_entropy_is_kl_plus_the_entropy_of_its_target(
    smoothing: float, logits: Tensor, target: Tensor
) -> None:
    cross_entropy, kl = CrossEntropy(label_smoothing=smoothing), KLDivergence(label_smoothing=smoothing)
    q = [1 - smoothing + smoothing / NUM_OUTPUTS] + (NUM_OUTPUTS - 1) * [smoothing / NUM_OUTPUTS]
    entropy = -sum(share * math.log(share) for share in q if share)
    difference = cross_entropy.position_loss(logits, target) - kl.position_loss(logits, target)
    torch.testing.assert_close(difference, torch.full_like(difference, entropy), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient(cross_entropy, logits, target), gradient(kl, logits, target))


def test_kl_is_zero_exactly_where_the_prediction_is_the_smoothed_target() -> None:
    smoothed = torch.full((1, 5), 0.1 / 5, dtype=torch.float64)
    smoothed[0, 2] += 0.9
    loss = KLDivergence(label_smoothing=0.1)
    assert loss.position_loss(smoothed.log(), torch.tensor([2])).item() == pytest.approx(0.0, abs=1e-12)
    assert loss.position_loss(smoothed.log(), torch.tensor([3])).item() > 0.1


@softmax_cases
def test_softmax_losses_do_not_see_a_shift(case: Case, logits: Tensor, target: Tensor) -> None:
    loss = case.make()
    shift = torch.linspace(-50, 50, len(logits), dtype=torch.float64)[:, None]
    expected = loss.position_loss(logits, target)
    torch.testing.assert_close(loss.position_loss(logits + shift, target), expected, rtol=1e-12, atol=1e-12)


@softmax_cases
def test_gradients_of_softmax_losses_sum_to_zero_in_each_row(case: Case, logits: Tensor, target: Tensor) -> None:
    rows = gradient(case.make(), logits, target)
    assert rows.abs().sum(dim=-1).min() > 1e-3
    assert rows.sum(dim=-1).abs().max() < 1e-14


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(),
        CrossEntropy(label_smoothing=0.1),
        CrossEntropy(temperature=2.0),
        CrossEntropy(class_weights=[0.5, 2.0, 1.0, 4.0]),
        CrossEntropy(label_smoothing=0.3, temperature=0.5, class_weights=[0.5, 2.0, 1.0, 4.0]),
        KLDivergence(label_smoothing=0.0),
        KLDivergence(label_smoothing=0.1),
        Square(),
        Square(k=1.0, m=1.0),
        Square(k=1.0, m=15.0),
    ],
)
def test_posterior_at_the_minimum_of_the_expected_loss_is_the_data_distribution(loss: Loss) -> None:
    def expected_loss(z: Tensor) -> Tensor:
        classes = torch.arange(len(ETA))
        return (ETA * loss.position_loss(z.expand(len(ETA), -1), classes)).sum()

    posterior = loss.posterior(minimiser(expected_loss)[None])
    assert posterior is not None
    torch.testing.assert_close(posterior[0], ETA, rtol=0, atol=1e-6)


def test_posterior_of_square_clips_scores_to_zero_and_m() -> None:
    posterior = Square(k=4.0, m=3.0).posterior(torch.tensor([[-1.0, 0.0, 3.0, 5.0]]))
    torch.testing.assert_close(posterior, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))


def test_cross_entropy_predicts_at_its_temperature(logits: Tensor) -> None:
    torch.testing.assert_close(
        CrossEntropy(temperature=2.0).predict_log_probs(logits), (logits / 2).log_softmax(dim=-1)
    )


def test_square_predicts_at_the_calibrated_scale(logits: Tensor) -> None:
    loss = Square()
    torch.testing.assert_close(loss.predict_log_probs(logits), logits.log_softmax(dim=-1))
    loss.calibrate(0.25)
    torch.testing.assert_close(loss.predict_log_probs(logits), (logits / 4).log_softmax(dim=-1))


@pytest.mark.parametrize(
    ("loss", "kwargs", "named"),
    [
        (CrossEntropy, {"label_smoothing": -0.1}, "label_smoothing"),
        (CrossEntropy, {"label_smoothing": 1.0}, "label_smoothing"),
        (CrossEntropy, {"label_smoothing": math.nan}, "label_smoothing"),
        (CrossEntropy, {"temperature": 0.0}, "temperature"),
        (CrossEntropy, {"temperature": -1.0}, "temperature"),
        (CrossEntropy, {"temperature": math.nan}, "temperature"),
        (CrossEntropy, {"class_weights": [1.0, 0.0]}, "class_weights"),
        (CrossEntropy, {"class_weights": [1.0, -1.0]}, "class_weights"),
        (CrossEntropy, {"class_weights": [1.0, math.nan]}, "class_weights"),
        (KLDivergence, {"label_smoothing": -0.1}, "label_smoothing"),
        (KLDivergence, {"label_smoothing": 1.0}, "label_smoothing"),
        (KLDivergence, {"label_smoothing": math.nan}, "label_smoothing"),
        (Square, {"k": 0.0}, "k must"),
        (Square, {"k": math.nan}, "k must"),
        (Square, {"m": 0.0}, "m must"),
        (Square, {"m": -30.0}, "m must"),
    ],
)
def test_values_outside_their_range_are_refused_by_name(
    loss: type[Loss], kwargs: dict[str, object], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        loss(**kwargs)


def test_a_wrong_number_of_class_weights_is_refused_once_the_classes_are_known() -> None:
    spec = OutputSpec(num_outputs=NUM_OUTPUTS + 1, hidden_size=4, generator=torch.Generator())
    with pytest.raises(UserError, match="7 numbers for 8 classes"):
        CrossEntropy(class_weights=CLASS_WEIGHTS).bind(spec)
