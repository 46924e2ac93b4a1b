"""Identities and closed forms that pin each loss from outside."""

from __future__ import annotations

import math
from collections.abc import Callable

import entmax as entmax_package
import pytest
import torch
from cases import CASES, CLASS_WEIGHTS, NUM_OUTPUTS, Case
from problems import bound, problem_for
from torch import Tensor
from torch.nn import functional

from losslab.contracts import Features, OutputSpec, added
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.confidence_penalty import ConfidencePenalty
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.dynamic_fine_tuning import DynamicFineTuning
from losslab.losses.entmax import Entmax, entmax
from losslab.losses.focal import Focal
from losslab.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from losslab.losses.hinge import Hinge
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.poly1 import Poly1
from losslab.losses.square import Square
from losslab.losses.squentropy import Squentropy
from losslab.losses.stablemax import StableMax
from losslab.losses.symmetric_cross_entropy import SymmetricCrossEntropy

ETA = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)

of_targets = [case for case in CASES if case.is_softmax and not case.sees_features]
softmax_cases = pytest.mark.parametrize("case", of_targets, ids=str)


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(20, NUM_OUTPUTS, dtype=torch.float64, generator=generator)


@pytest.fixture
def target() -> Tensor:
    return torch.randint(NUM_OUTPUTS, (20,), generator=torch.Generator().manual_seed(1))


def of_its_kind(case: Case) -> tuple[Tensor, Tensor]:
    """Outputs, and targets of the kind that the loss expects."""
    features, projection = problem_for(case, 20)
    return case.scores(features.hidden, projection, None), features.target


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(value(loss, leaf, target).sum(), leaf)[0]


def value(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    return added(loss.from_logits(logits, Features(logits, target, torch.ones(len(target)))))


def minimiser(expected_loss: Callable[[Tensor], Tensor]) -> Tensor:
    """By quasi-Newton steps from a start without symmetries; not every loss is convex in its logits."""
    z = torch.linspace(0.3, -0.2, len(ETA), dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [z], max_iter=2000, tolerance_grad=1e-13, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = expected_loss(z)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    assert torch.autograd.grad(expected_loss(z), z)[0].abs().max() < 1e-7
    return z.detach()


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
def test_softmax_losses_do_not_see_a_shift(case: Case) -> None:
    loss = bound(case)
    logits, target = of_its_kind(case)
    shift = torch.linspace(-50, 50, len(logits), dtype=torch.float64)[:, None]
    expected = value(loss, logits, target)
    torch.testing.assert_close(value(loss, logits + shift, target), expected, rtol=1e-12, atol=1e-12)


@softmax_cases
def test_gradients_of_softmax_losses_sum_to_zero_in_each_row(case: Case) -> None:
    rows = gradient(bound(case), *of_its_kind(case))
    assert rows.abs().sum(dim=-1).median() > 1e-3
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
        Focal(),
        Focal(gamma=0.5),
        Focal(gamma=0.0),
        Poly1(),
        Poly1(epsilon=-0.5),
        GeneralisedCrossEntropy(q=0.3),
        SymmetricCrossEntropy(),
        Brier(),
        ConfidencePenalty(),
        ConfidencePenalty(beta=1.0),
        StableMax(),
        Entmax(alpha=1.1),
        Entmax(alpha=1.1, label_smoothing=0.2),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_posterior_at_the_minimum_of_the_expected_loss_is_the_data_distribution(loss: Loss) -> None:
    def expected_loss(z: Tensor) -> Tensor:
        classes = torch.arange(len(ETA))
        return (ETA * loss.position_loss(z.expand(len(ETA), -1), classes)).sum()

    posterior = loss.posterior(minimiser(expected_loss)[None])
    assert posterior is not None
    torch.testing.assert_close(posterior[0], ETA, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        Focal(sample_dependent=True),
        Poly1(epsilon=-1.0),
        GeneralisedCrossEntropy(q=1.0),
        GeneralisedCrossEntropy(truncation=0.5),
        DynamicFineTuning(),
        Squentropy(),
        Hinge(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_a_loss_without_a_closed_link_says_so(loss: Loss, logits: Tensor) -> None:
    assert loss.posterior(logits) is None


@pytest.mark.parametrize(
    "loss",
    [Focal(gamma=0.0), Poly1(epsilon=0.0), GeneralisedCrossEntropy(q=1e-8), ConfidencePenalty(beta=0.0)],
    ids=lambda loss: type(loss).__name__,
)
def test_switched_off_every_loss_of_the_family_is_cross_entropy(loss: Loss, logits: Tensor, target: Tensor) -> None:
    expected = functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(loss.position_loss(logits, target), expected, rtol=1e-6, atol=1e-9)


def test_entmax_approaches_cross_entropy_as_alpha_approaches_one(logits: Tensor, target: Tensor) -> None:
    expected = functional.cross_entropy(logits, target, reduction="none")
    error = [
        (Entmax(alpha=1 + gap).position_loss(logits, target) - expected).abs().max().item() for gap in (1e-2, 1e-3)
    ]
    assert error[1] < 0.2 * error[0]
    assert error[1] < 0.05


@pytest.mark.parametrize(("loss", "power"), [(GeneralisedCrossEntropy(q=0.7), 0.7), (DynamicFineTuning(), 1.0)])
def test_gradients_are_cross_entropys_times_a_power_of_the_probability(
    loss: Loss, power: float, logits: Tensor, target: Tensor
) -> None:
    p = logits.softmax(dim=-1).gather(-1, target[:, None])
    expected = p**power * gradient(CrossEntropy(), logits, target)
    torch.testing.assert_close(gradient(loss, logits, target), expected, rtol=1e-10, atol=1e-14)


def test_symmetric_cross_entropy_on_hard_targets_is_poly1(logits: Tensor, target: Tensor) -> None:
    symmetric = SymmetricCrossEntropy(alpha=0.5, beta=2.0, log_zero=-3.0).position_loss(logits, target)
    torch.testing.assert_close(symmetric, 0.5 * Poly1(epsilon=3.0 * 2.0 / 0.5).position_loss(logits, target))


def test_brier_lies_between_zero_and_two(logits: Tensor, target: Tensor) -> None:
    values = Brier().position_loss(100 * logits, target)
    assert values.min() >= 0
    assert values.max() <= 2
    assert values.max() > 1.99


def test_truncation_stops_the_gradient_of_what_is_predicted_badly(logits: Tensor, target: Tensor) -> None:
    p = logits.softmax(dim=-1).gather(-1, target[:, None])[:, 0]
    moved = gradient(GeneralisedCrossEntropy(truncation=0.1), logits, target).abs().sum(dim=-1) > 0
    assert 0 < moved.sum() < len(moved)
    assert torch.equal(moved, p > 0.1)


def test_focal_has_a_gradient_where_the_target_is_certain() -> None:
    certain = torch.tensor([[1000.0, 0.0, 0.0]])
    for gamma in (0.0, 0.5, 2.0):
        assert gradient(Focal(gamma=gamma), certain, torch.tensor([0])).isfinite().all()


@pytest.mark.parametrize(("alpha", "name"), [(1.5, "entmax15"), (2.0, "sparsemax"), (1.3, "entmax_bisect")])
def test_sparse_predictions_and_losses_equal_the_entmax_package(
    alpha: float, name: str, logits: Tensor, target: Tensor
) -> None:
    options = {"alpha": alpha} if name == "entmax_bisect" else {}
    expected = getattr(entmax_package, name)(logits, dim=-1, **options)
    torch.testing.assert_close(entmax(logits, alpha), expected, rtol=1e-10, atol=1e-10)
    loss = getattr(entmax_package, f"{name}_loss")
    expected_loss = loss(logits, target, **options)
    actual = Entmax(alpha=alpha).position_loss(logits, target)
    torch.testing.assert_close(actual, expected_loss.reshape(actual.shape), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_smoothed_entmax_is_the_gap_between_the_entropy_and_its_conjugate(alpha: float, target: Tensor) -> None:
    """Ω*(z) + Ω(q) − q · z by its definition: 0 where z is the gradient of Ω at q, above 0 elsewhere, and its slope
    there is p* − q."""
    q = 0.8 * functional.one_hot(target, NUM_OUTPUTS).double() + 0.2 / NUM_OUTPUTS
    at_minimum = q ** (alpha - 1) / (alpha - 1)
    loss = Entmax(alpha=alpha, label_smoothing=0.2)
    zero = loss.position_loss(at_minimum + 3.0, target)
    torch.testing.assert_close(zero, torch.zeros_like(zero), rtol=0, atol=1e-12)
    moved = at_minimum + torch.randn(q.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert (loss.position_loss(moved, target) > 1e-3).all()
    torch.testing.assert_close(gradient(loss, moved, target), entmax(moved, alpha) - q, rtol=1e-12, atol=1e-12)


def test_smoothed_entmax_approaches_kl_as_alpha_approaches_one(logits: Tensor, target: Tensor) -> None:
    expected = KLDivergence(label_smoothing=0.1).position_loss(logits, target)
    found = [Entmax(alpha=1 + gap, label_smoothing=0.1).position_loss(logits, target) for gap in (1e-2, 1e-3)]
    error = [(values - expected).abs().max().item() for values in found]
    assert error[1] < 0.2 * error[0] < 0.1


@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0, 3.0])
def test_sparse_predictions_are_distributions_at_any_scale(alpha: float) -> None:
    z = torch.randn(50, 1000, generator=torch.Generator().manual_seed(3))
    for scale in (0.0, 1e-3, 1.0, 1e4):
        p = entmax(scale * z, alpha)
        assert (p >= 0).all()
        torch.testing.assert_close(p.sum(dim=-1), torch.ones(50))


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
        (Focal, {"gamma": -1.0}, "gamma"),
        (Focal, {"gamma": math.nan}, "gamma"),
        (Poly1, {"epsilon": -1.1}, "epsilon"),
        (Poly1, {"epsilon": math.inf}, "epsilon"),
        (GeneralisedCrossEntropy, {"q": 0.0}, "loss.q"),
        (GeneralisedCrossEntropy, {"q": 1.1}, "loss.q"),
        (GeneralisedCrossEntropy, {"truncation": 1.0}, "truncation"),
        (GeneralisedCrossEntropy, {"truncation": -0.1}, "truncation"),
        (SymmetricCrossEntropy, {"alpha": 0.0}, "alpha"),
        (SymmetricCrossEntropy, {"beta": -1.0}, "beta"),
        (SymmetricCrossEntropy, {"log_zero": 0.0}, "log_zero"),
        (ConfidencePenalty, {"beta": -0.1}, "beta"),
        (Entmax, {"alpha": 1.0}, "alpha"),
        (Entmax, {"alpha": 3.5}, "alpha"),
        (Entmax, {"label_smoothing": 1.0}, "label_smoothing"),
        (Hinge, {"margin": 0.0}, "margin"),
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
