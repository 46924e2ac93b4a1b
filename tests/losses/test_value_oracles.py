"""Identities and closed forms that pin the losses of values, labels and distributions from outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.binary_cross_entropy import BinaryCrossEntropy
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.gaussian_nll import GaussianNLL
from losslab.losses.hl_gauss import HLGauss
from losslab.losses.huber import Huber
from losslab.losses.log_cosh import LogCosh
from losslab.losses.mae import MAE
from losslab.losses.mse import MSE
from losslab.losses.quantile import Quantile
from losslab.losses.soft_cross_entropy import SoftCrossEntropy
from losslab.losses.square import Square

ROWS, NUM_VALUES, NUM_CLASSES = 20, 3, 7
# Skewed, so that mean, median and quantiles are far apart; an odd number, so that the median is one of them.
DATA = torch.tensor([[0.1], [0.2], [0.4], [0.5], [0.9], [1.3], [2.0], [3.5], [8.0]], dtype=torch.float64)


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def predicted() -> Tensor:
    return draw(0, ROWS, NUM_VALUES, scale=2.0)


@pytest.fixture
def target() -> Tensor:
    return draw(1, ROWS, NUM_VALUES)


@pytest.fixture
def logits() -> Tensor:
    return draw(2, ROWS, NUM_CLASSES, scale=3.0)


@pytest.fixture
def shares() -> Tensor:
    return draw(3, ROWS, NUM_CLASSES).softmax(dim=-1)


def gradient(loss: Loss, outputs: Tensor, target: Tensor) -> Tensor:
    leaf = outputs.clone().requires_grad_()
    return torch.autograd.grad(loss.position_loss(leaf, target).sum(), leaf)[0]


def minimiser(loss: Loss, target: Tensor, start: Tensor) -> Tensor:
    """The outputs of the smallest mean loss over `target`, the same for every position, by quasi-Newton steps."""
    outputs = start.double().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [outputs], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss.position_loss(outputs.expand(len(target), -1), target).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    return outputs.detach()


def best_on_a_grid(loss: Loss, target: Tensor, steps: int = 8001) -> float:
    """Where one output is best, for a loss with corners."""
    grid = torch.linspace(0, 8, steps, dtype=torch.float64)
    values = [loss.position_loss(z.expand(len(target), 1), target).mean() for z in grid]
    return grid[int(torch.stack(values).argmin())].item()


@pytest.mark.parametrize(
    ("loss", "of_torch"),
    [
        (MSE(), functional.mse_loss),
        (MAE(), functional.l1_loss),
        (Huber(), functional.huber_loss),
        (Huber(delta=0.5), lambda *both: functional.huber_loss(*both, delta=0.5)),
        (Huber(delta=0.5), lambda *both: 0.5 * functional.smooth_l1_loss(*both, beta=0.5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_mean_over_positions_is_torchs(
    loss: Loss, of_torch: Callable[..., Tensor], predicted: Tensor, target: Tensor
) -> None:
    assert loss.position_loss(predicted, target).shape == (ROWS,)
    torch.testing.assert_close(loss.position_loss(predicted, target).mean(), of_torch(predicted, target))


def test_mse_of_a_hand_worked_row() -> None:
    assert MSE().position_loss(torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 4.0]])).item() == 2.5


@pytest.mark.parametrize("log_scale", [-1.0, 0.0, 2.0])
def test_gaussian_nll_is_torchs_of_the_same_variance(log_scale: float, predicted: Tensor, target: Tensor) -> None:
    log_variance = draw(4, ROWS, NUM_VALUES) + log_scale
    own = GaussianNLL(variance_floor=1e-3).position_loss(torch.cat([predicted, log_variance], dim=-1), target)
    expected = functional.gaussian_nll_loss(predicted, target, log_variance.exp() + 1e-3, reduction="none")
    torch.testing.assert_close(own, expected.mean(dim=-1))


def test_gaussian_nll_of_unit_variance_is_half_the_squared_error(predicted: Tensor, target: Tensor) -> None:
    outputs = torch.cat([predicted, torch.zeros_like(predicted)], dim=-1)
    own = GaussianNLL(variance_floor=1e-12).position_loss(outputs, target)
    torch.testing.assert_close(own, MSE().position_loss(predicted, target) / 2)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_binary_cross_entropy_is_torchs_summed_over_classes(weight: float, logits: Tensor) -> None:
    for labels in (draw(5, ROWS, NUM_CLASSES).sigmoid(), draw(5, ROWS, NUM_CLASSES).sigmoid().round()):
        expected = functional.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=torch.full((NUM_CLASSES,), weight, dtype=torch.float64), reduction="none"
        )
        own = BinaryCrossEntropy(positive_weight=weight).position_loss(logits, labels)
        torch.testing.assert_close(own, expected.sum(dim=-1))


def test_binary_cross_entropy_of_two_exclusive_classes_is_cross_entropy() -> None:
    """−log s(z) is the cross-entropy of the logits (z, 0)."""
    z, y = draw(6, ROWS, 1), torch.arange(ROWS) % 2
    expected = CrossEntropy().position_loss(torch.cat([torch.zeros_like(z), z], dim=-1), y)
    torch.testing.assert_close(BinaryCrossEntropy().position_loss(z, y[:, None].double()), expected)


def test_soft_cross_entropy_is_torchs_with_probability_targets(logits: Tensor, shares: Tensor) -> None:
    expected = functional.cross_entropy(logits, shares, reduction="sum")
    torch.testing.assert_close(SoftCrossEntropy().position_loss(logits, shares).sum(), expected)
    torch.testing.assert_close(gradient(SoftCrossEntropy(), logits, shares), logits.softmax(dim=-1) - shares)


def test_soft_cross_entropy_of_one_class_and_of_smoothed_ones_is_cross_entropy(logits: Tensor) -> None:
    y = torch.arange(ROWS) % NUM_CLASSES
    hard = functional.one_hot(y, NUM_CLASSES).double()
    for smoothing in (0.0, 0.1):
        own = SoftCrossEntropy().position_loss(logits, (1 - smoothing) * hard + smoothing / NUM_CLASSES)
        torch.testing.assert_close(own, CrossEntropy(label_smoothing=smoothing).position_loss(logits, y))


def test_mse_on_one_hot_targets_is_the_square_loss(logits: Tensor) -> None:
    y = torch.arange(ROWS) % NUM_CLASSES
    own = MSE().position_loss(logits, 3 * functional.one_hot(y, NUM_CLASSES).double())
    torch.testing.assert_close(own, Square(k=1.0, m=3.0).position_loss(logits, y))


def test_the_best_constants_are_mean_median_and_quantiles() -> None:
    mean = minimiser(MSE(), DATA, torch.zeros(1))
    torch.testing.assert_close(mean, DATA.mean(dim=0))
    assert best_on_a_grid(MAE(), DATA) == pytest.approx(0.9)
    assert best_on_a_grid(Quantile(levels=[0.5]), DATA) == pytest.approx(0.9)
    for level in (0.15, 0.3, 0.8, 0.95):
        expected = DATA[math.ceil(level * len(DATA)) - 1].item()
        assert best_on_a_grid(Quantile(levels=[level]), DATA) == pytest.approx(expected)


def test_the_best_constant_of_huber_goes_from_median_to_mean() -> None:
    start = torch.ones(1)
    assert minimiser(Huber(delta=100.0), DATA, start).item() == pytest.approx(DATA.mean().item(), abs=1e-6)
    assert best_on_a_grid(Huber(delta=1e-3), DATA) == pytest.approx(0.9, abs=2e-3)
    assert 0.9 < minimiser(Huber(), DATA, start).item() < DATA.mean().item()


@pytest.mark.parametrize("loss", [Huber(), LogCosh()], ids=lambda loss: type(loss).__name__)
def test_of_symmetric_values_the_middle_is_best(loss: Loss) -> None:
    around = torch.cat([3 - DATA, 3 + DATA])
    assert minimiser(loss, around, torch.ones(1)).item() == pytest.approx(3.0, abs=1e-6)


def test_log_cosh_is_quadratic_near_zero_and_absolute_far_out() -> None:
    small = torch.tensor([[1e-3], [-1e-4]], dtype=torch.float64)
    none = torch.zeros_like(small)
    expected = small[:, 0] ** 2 / 2 - small[:, 0] ** 4 / 12
    torch.testing.assert_close(LogCosh().position_loss(small, none), expected, rtol=1e-8, atol=0)
    large = torch.tensor([[50.0], [-1e6]], dtype=torch.float64)
    torch.testing.assert_close(LogCosh().position_loss(large, none), large.abs()[:, 0] - math.log(2))


def test_gradients_are_clipped_and_squashed_residuals(predicted: Tensor, target: Tensor) -> None:
    residual = predicted - target
    torch.testing.assert_close(gradient(MSE(), predicted, target), 2 * residual / NUM_VALUES)
    torch.testing.assert_close(gradient(MAE(), predicted, target), residual.sign() / NUM_VALUES)
    torch.testing.assert_close(gradient(Huber(), predicted, target), residual.clamp(-1, 1) / NUM_VALUES)
    torch.testing.assert_close(gradient(LogCosh(), predicted, target), residual.tanh() / NUM_VALUES)


def test_quantile_of_the_median_is_half_the_absolute_error(predicted: Tensor, target: Tensor) -> None:
    own = Quantile(levels=[0.5]).position_loss(predicted, target)
    torch.testing.assert_close(own, MAE().position_loss(predicted, target) / 2)


def test_quantile_is_the_mean_of_its_levels_and_predicts_the_one_nearest_to_the_median(target: Tensor) -> None:
    levels = [0.1, 0.4, 0.95]
    outputs = draw(7, ROWS, NUM_VALUES, len(levels))
    parts = [Quantile(levels=[level]).position_loss(outputs[..., i], target) for i, level in enumerate(levels)]
    loss = Quantile(levels=levels)
    torch.testing.assert_close(loss.position_loss(outputs.flatten(1), target), torch.stack(parts).mean(dim=0))
    assert loss.num_outputs(NUM_VALUES) == outputs.flatten(1).shape[1]
    assert torch.equal(loss.predict_values(outputs.flatten(1)), outputs[..., 1])
    assert torch.equal(Quantile(levels=[0.25, 0.75]).predict_values(outputs[..., :2].flatten(1)), outputs[..., 0])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_best_gaussian_has_mean_and_spread_of_the_data(beta: float) -> None:
    """The gradient is 0 there; the value of β-NLL is no guide, as its weight is no part of what is differentiated."""
    loss = GaussianNLL(beta=beta, variance_floor=1e-9)
    spread = DATA.var(correction=0)
    best = torch.stack([DATA.mean(), (spread - 1e-9).log()])
    assert gradient(loss, best.expand(len(DATA), -1), DATA).sum(dim=0).abs().max() < 1e-10
    off = best + torch.tensor([0.5, 0.5], dtype=torch.float64)
    slopes = gradient(loss, off.expand(len(DATA), -1), DATA).sum(dim=0)
    assert (slopes > 0.1).all()
    if beta == 0:
        torch.testing.assert_close(minimiser(loss, DATA, torch.tensor([1.0, 0.0])), best, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0])
def test_gradients_of_beta_nll_are_those_of_the_likelihood_times_a_power_of_the_variance(
    beta: float, target: Tensor
) -> None:
    outputs = draw(8, ROWS, 2 * NUM_VALUES)
    plain, weighted = (gradient(GaussianNLL(beta=b), outputs, target) for b in (0.0, beta))
    weight = (outputs[:, NUM_VALUES:].exp() + 1e-6) ** beta
    torch.testing.assert_close(weighted, torch.cat([weight, weight], dim=-1) * plain)


def test_with_beta_one_means_learn_as_under_half_the_squared_error(predicted: Tensor, target: Tensor) -> None:
    outputs = torch.cat([predicted, draw(9, ROWS, NUM_VALUES)], dim=-1)
    of_means = gradient(GaussianNLL(beta=1.0), outputs, target)[:, :NUM_VALUES]
    torch.testing.assert_close(of_means, gradient(MSE(), predicted, target) / 2)


def test_no_variance_is_below_the_floor() -> None:
    outputs, target = torch.tensor([[1.0, -1e4]]), torch.tensor([[3.0]])
    value = GaussianNLL(variance_floor=0.25).position_loss(outputs, target).item()
    assert value == pytest.approx((math.log(0.25) + 4 / 0.25) / 2)


def test_a_position_with_a_huge_variance_has_a_bounded_weight() -> None:
    loss = GaussianNLL(beta=1.0)
    outputs = torch.tensor([[1.0, 1e4]])
    value = loss.position_loss(outputs, torch.tensor([[0.0]]))
    assert value.item() == pytest.approx(1e12 * 1e4 / 2, rel=1e-5)
    assert gradient(loss, outputs, torch.tensor([[0.0]])).isfinite().all()
    assert loss.has_detached and not GaussianNLL().has_detached


def test_the_mean_of_the_histogram_is_the_value_inside_the_range() -> None:
    loss = HLGauss(num_bins=40, low=-2.0, high=6.0)
    y = torch.linspace(-1, 5, 61, dtype=torch.float64)[:, None]
    shares = loss.histogram(y)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones_like(y))
    recovered = loss.predict_values(shares.log().clamp(min=-700).flatten(1))
    # Bins are 0.2 wide; a Gaussian of 3/4 of a bin hardly depends on where in a bin its centre is.
    torch.testing.assert_close(recovered, y, rtol=0, atol=1e-5)


def test_outside_the_range_a_value_counts_as_its_nearer_end() -> None:
    loss = HLGauss(num_bins=10, low=0.0, high=1.0)
    low, high = loss.histogram(torch.tensor([[-5.0, 0.0], [1.0, 77.0]]))
    torch.testing.assert_close(low[0], low[1])
    torch.testing.assert_close(high[0], high[1])
    torch.testing.assert_close(low[0].flip(0), high[0])
    torch.testing.assert_close(low.sum(dim=-1), torch.ones(2))
    assert low[0].argmax() == 0


def test_a_sharp_histogram_is_one_bin_and_the_loss_is_cross_entropy() -> None:
    loss = HLGauss(num_bins=8, low=0.0, high=8.0, sigma=0.01)
    outputs, bins = draw(10, ROWS, 8), torch.arange(ROWS) % 8
    own = loss.position_loss(outputs, bins[:, None] + 0.5)
    torch.testing.assert_close(own, CrossEntropy().position_loss(outputs, bins))


def test_the_best_bins_are_the_expected_histogram() -> None:
    loss = HLGauss(num_bins=6, low=-1.0, high=9.0)
    best = minimiser(loss, DATA, torch.linspace(-0.1, 0.2, 6)).softmax(dim=-1)
    torch.testing.assert_close(best, loss.histogram(DATA).mean(dim=0)[0], rtol=0, atol=1e-6)


def test_gradients_of_hl_gauss_are_prediction_less_histogram(target: Tensor) -> None:
    loss = HLGauss(num_bins=5, low=-1.0, high=1.0)
    outputs = draw(11, ROWS, NUM_VALUES, 5)
    expected = (outputs.softmax(dim=-1) - loss.histogram(target)) / NUM_VALUES
    torch.testing.assert_close(gradient(loss, outputs.flatten(1), target), expected.flatten(1))


@pytest.mark.parametrize("weight", [1.0, 0.5, 4.0])
def test_posterior_of_labels_is_the_data_at_the_minimum(weight: float) -> None:
    loss = BinaryCrossEntropy(positive_weight=weight)
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0]], dtype=torch.float64)
    best = minimiser(loss, labels, torch.zeros(3))[None]
    torch.testing.assert_close(loss.posterior(best), labels.mean(dim=0, keepdim=True), rtol=0, atol=1e-6)
    assert loss.is_proper == (weight == 1)
    assert torch.allclose(loss.predict_log_probs(best).exp(), labels.mean(dim=0), atol=1e-6) == loss.is_proper


def test_posterior_of_distributions_is_their_mean_at_the_minimum(shares: Tensor) -> None:
    loss = SoftCrossEntropy()
    best = minimiser(loss, shares, torch.zeros(NUM_CLASSES))[None]
    for found in (loss.posterior(best), loss.predict_log_probs(best).exp()):
        torch.testing.assert_close(found[0], shares.mean(dim=0), rtol=0, atol=1e-6)


def test_soft_cross_entropy_is_smallest_at_the_target_and_there_its_entropy(logits: Tensor, shares: Tensor) -> None:
    entropy = -(shares * shares.log()).sum(dim=-1)
    torch.testing.assert_close(SoftCrossEntropy().position_loss(shares.log(), shares), entropy)
    assert (SoftCrossEntropy().position_loss(logits, shares) > entropy).all()


@pytest.mark.parametrize(
    ("loss", "kwargs", "said"),
    [
        (Huber, {"delta": 0.0}, "loss.delta must be above 0 and finite, not 0.0"),
        (Huber, {"delta": math.inf}, "loss.delta"),
        (Huber, {"delta": math.nan}, "loss.delta must be above 0 and finite, not nan"),
        (GaussianNLL, {"beta": -0.1}, "loss.beta"),
        (GaussianNLL, {"beta": 1.5}, "loss.beta"),
        (GaussianNLL, {"beta": math.nan}, "loss.beta"),
        (GaussianNLL, {"variance_floor": 0.0}, "loss.variance_floor must be 1e-12 or above"),
        (GaussianNLL, {"variance_floor": math.nan}, "loss.variance_floor"),
        (Quantile, {"levels": []}, "at least one"),
        (Quantile, {"levels": [0.0, 0.5]}, "loss.levels"),
        (Quantile, {"levels": [0.5, 1.0]}, "loss.levels"),
        (Quantile, {"levels": [0.9, 0.5]}, "loss.levels must be rising"),
        (Quantile, {"levels": [0.5, 0.5]}, "loss.levels must be rising"),
        (Quantile, {"levels": [math.nan]}, "loss.levels"),
        (HLGauss, {"num_bins": 1}, "loss.num_bins"),
        (HLGauss, {"low": 4.0}, "loss.low must be below loss.high"),
        (HLGauss, {"low": -math.inf}, "loss.low"),
        (HLGauss, {"high": math.nan}, "loss.high"),
        (HLGauss, {"sigma": 0.0}, "loss.sigma"),
        (HLGauss, {"sigma": 101.0}, "loss.sigma"),
        (HLGauss, {"sigma": math.nan}, "loss.sigma"),
        (BinaryCrossEntropy, {"positive_weight": 0.0}, "loss.positive_weight"),
        (BinaryCrossEntropy, {"positive_weight": math.nan}, "loss.positive_weight"),
    ],
)
def test_values_outside_their_range_are_refused_by_name(loss: type[Loss], kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        loss(**kwargs)
