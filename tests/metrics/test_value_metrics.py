"""Metrics of values against scipy and scikit-learn, and the meter: units, intervals, batches and ranks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn
from torch import Tensor

from losslab.contracts import Features
from losslab.losses.base import Loss
from losslab.losses.execution import LinearMap
from losslab.losses.gaussian_nll import GaussianNLL
from losslab.losses.hl_gauss import HLGauss
from losslab.losses.mse import MSE
from losslab.losses.quantile import Quantile
from losslab.metrics.value_meter import ValueMeter, value_metrics
from losslab.metrics.value_metrics import Values, average_ranks, measure

MEAN, STD = torch.tensor([1000.0, -2.0]), torch.tensor([50.0, 0.5])
LINEAR: dict[str, Callable[..., Any]] = {
    "rmse": sklearn.root_mean_squared_error,
    "mae": sklearn.mean_absolute_error,
    "r2": sklearn.r2_score,
}


def draw(seed: int, count: int, *, ties: bool = False) -> tuple[Values, Values, Values]:
    rng = np.random.default_rng(seed)
    target = rng.normal(1e4, 3, size=(count, 2))
    predicted = target + rng.normal(0, 2, size=(count, 2))
    weight = rng.uniform(0.5, 2, size=count)
    return (predicted.round(), target.round(), weight) if ties else (predicted, target, weight)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [2, 3, 200])
def test_metrics_agree_with_scikit_learn_and_scipy(count: int, ties: bool) -> None:
    predicted, target, weight = draw(count, count, ties=ties)
    found = measure(predicted, target, weight)
    for name, expected in LINEAR.items():
        assert found[name] == pytest.approx(expected(target, predicted, sample_weight=weight), rel=1e-9), name
    alike = measure(predicted, target, np.ones(count))
    for name, correlation in {"pearson": stats.pearsonr, "spearman": stats.spearmanr}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            each = [correlation(predicted[:, k], target[:, k]).statistic for k in range(2)]
        assert alike[name] == pytest.approx(np.mean(each), abs=1e-12, nan_ok=True), name


def test_a_weighted_correlation_is_that_of_repeated_rows() -> None:
    predicted, target, _ = draw(1, 20)
    times = np.random.default_rng(2).integers(1, 4, size=20)
    repeated = measure(predicted.repeat(times, axis=0), target.repeat(times, axis=0), np.ones(times.sum()))
    assert measure(predicted, target, times.astype(float))["pearson"] == pytest.approx(repeated["pearson"], rel=1e-12)


def test_what_is_not_defined_is_nan() -> None:
    y, one = np.array([[1.0], [2.0], [4.0]]), np.ones(3)
    constant = measure(np.full((3, 1), 2.0), y, one)
    assert math.isnan(constant["pearson"]) and math.isnan(constant["spearman"])
    assert constant["r2"] == pytest.approx(sklearn.r2_score(y, np.full((3, 1), 2.0)))
    for predicted in (y, y + 1):  # targets that are constant
        same = np.full((3, 1), 1.0)
        expected = sklearn.r2_score(same, same + predicted - y)
        assert measure(same + predicted - y, same, one)["r2"] == expected
    single = measure(y[:1] + 3, y[:1], one[:1])
    assert (single["rmse"], single["mae"]) == (3.0, 3.0)
    assert all(math.isnan(single[name]) for name in ("r2", "pearson", "spearman"))
    assert all(math.isnan(value) for value in measure(y[:0], y[:0], one[:0]).values())
    broken = measure(np.array([[math.nan], [1.0], [2.0]]), y, one)
    assert math.isnan(broken["rmse"]) and math.isnan(broken["spearman"])


def test_ranks_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).integers(5, size=50).astype(float)
    assert np.array_equal(average_ranks(values), stats.rankdata(values))


def features(count: int, *, seed: int = 0) -> Features:
    """Targets of two values, in an order other than that of their ids, and one that does not count."""
    generator = torch.Generator().manual_seed(seed)
    value = MEAN.double() + STD.double() * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    weight = torch.ones(count)
    weight[count // 2] = 0
    hidden = torch.randn(count, 3, generator=generator)
    extras = {"value": value, "id": torch.randperm(count, generator=generator)}
    return Features(hidden, ((value - MEAN) / STD).float(), weight, extras)


def projection(loss: Loss) -> LinearMap:
    return LinearMap(torch.randn(loss.num_outputs(2), 3, generator=torch.Generator().manual_seed(1)), None)


def values_of(loss: Loss, *batches: Features) -> dict[str, float]:
    meter = ValueMeter(mean=MEAN, std=STD)
    for batch in batches:
        meter.update(batch, loss, projection(loss))
    return meter.values()


def in_units(predicted: Tensor) -> Values:
    units: Values = (predicted.double() * STD + MEAN).numpy()
    return units


LOSSES = [MSE(), GaussianNLL(), Quantile(levels=[0.05, 0.5, 0.9]), HLGauss(num_bins=20)]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_batches_and_ranks_change_nothing(loss: Loss) -> None:
    whole = features(40)
    expected = values_of(loss, whole)
    assert expected.keys() <= {metric.name for metric in value_metrics("cm")}
    assert values_of(loss, whole[:13], whole[13:13], whole[13:]) == pytest.approx(expected, nan_ok=True)
    meters = []
    for part in (whole[0::2], whole[1::2]):
        meter = ValueMeter(mean=MEAN, std=STD)
        meter.update(part, loss, projection(loss))
        meters.append(meter.states())
    together = ValueMeter(mean=MEAN, std=STD)
    rows, sums = ([states[name][0] for states in meters] for name in ("rows", "sums"))
    together.combine({"rows": torch.cat(rows), "sums": sums[0] + sums[1]})
    found = together.values()
    assert found == pytest.approx(expected, nan_ok=True)
    assert all(found[name] == expected[name] for name in ("rmse", "mae", "r2", "pearson", "spearman"))
    kept = whole.kept()
    predicted = in_units(loss.predict_values(loss.scores(kept.hidden, projection(loss))))
    error = sklearn.root_mean_squared_error(kept.extras["value"].numpy(), predicted)
    assert expected["rmse"] == pytest.approx(error, rel=1e-6)


def test_a_normal_density_is_that_of_scipy_in_units() -> None:
    loss, batch = GaussianNLL(), features(40).kept()
    found = values_of(loss, batch)
    mean, log_variance = loss.scores(batch.hidden, projection(loss)).double().chunk(2, dim=-1)
    sigma = ((log_variance.exp() + loss.variance_floor).sqrt() * STD).numpy()
    normal = stats.norm(in_units(mean), sigma)
    value = batch.extras["value"].numpy()
    assert found["nll"] == pytest.approx(-normal.logpdf(value).mean(), rel=1e-5)
    assert found["zeros"] == 0
    for name, share in {"80": 0.8, "95": 0.95}.items():
        low, high = normal.interval(share)
        assert found[f"coverage_{name}"] == pytest.approx(((low <= value) & (value <= high)).mean())
        assert found[f"width_{name}"] == pytest.approx((high - low).mean(), rel=1e-5)
    assert "interval_nominal" not in found


def test_a_histogram_is_that_of_scipy_in_units() -> None:
    loss, batch = HLGauss(num_bins=20, low=-1.5, high=2.0), features(40).kept()
    found = values_of(loss, batch)
    shares = loss.scores(batch.hidden, projection(loss)).double().view(-1, 2, 20).softmax(dim=-1).numpy()
    densities, inside = [], []
    for row, value in zip(shares, batch.extras["value"].numpy(), strict=True):
        for k, own in enumerate(row):
            edges = np.linspace(-1.5, 2.0, 21) * STD[k].item() + MEAN[k].item()
            histogram = stats.rv_histogram((own, edges), density=False)
            densities.append(histogram.logpdf(value[k]))
            low, high = histogram.ppf([0.1, 0.9])
            inside.append(low <= value[k] <= high)
    outside = np.mean(np.isinf(densities))
    assert outside > 0 and found["zeros"] == pytest.approx(outside) and found["nll"] == math.inf
    assert found["coverage_80"] == pytest.approx(np.mean(inside))
    near = features(40)
    near.target.clamp_(-1.4, 1.9)
    near = Features(near.hidden, near.target, near.weight, near.extras | {"value": near.target * STD + MEAN})
    assert math.isfinite(values_of(loss, near)["nll"])


def test_a_loss_of_quantiles_has_the_intervals_between_its_levels() -> None:
    batch = features(40).kept()
    found = values_of(Quantile(levels=[0.1, 0.5, 0.9]), batch)
    assert (found["interval_nominal"], found["coverage_80"]) == (pytest.approx(0.8), found["interval_coverage"])
    assert found["width_80"] == found["interval_width"] and "coverage_95" not in found and "nll" not in found
    assert values_of(Quantile(levels=[0.05, 0.5, 0.9]), batch)["interval_nominal"] == pytest.approx(0.85)
    assert not [name for name in values_of(Quantile(levels=[0.5]), batch) if name.startswith(("interval", "coverage"))]


def test_a_unit_stands_in_the_declarations() -> None:
    units = {metric.name: metric.unit for metric in value_metrics("cm")}
    assert (units["rmse"], units["width_95"], units["nll"], units["r2"]) == ("cm", "cm", "nats per value in cm", "")
