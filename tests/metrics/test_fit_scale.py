"""The one scale of nll_scaled, against a minimiser that has seen none of this code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from losslab.contracts import Features
from losslab.losses.base import Projection
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.square import Square
from losslab.metrics.scale import fit_scale
from losslab.metrics.temperature import Temperature
from losslab.models.projection import OutputProjection

V, ROWS = 11, 4000
LARGEST = 1024.0


def sample(ideal: float) -> tuple[Tensor, Tensor]:
    """Scores, and targets drawn from softmax(ideal · scores)."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(ROWS, V, generator=generator)
    return scores, torch.multinomial((ideal * scores).softmax(dim=-1), 1, generator=generator)[:, 0]


def fit(scores: Tensor, target: Tensor, *, pieces: int = 1) -> float:
    """Hidden states that the identity projects to the scores."""
    features = Features(scores, target, torch.ones(len(target)))
    size = math.ceil(len(target) / pieces)
    return fit_scale(features.chunks(size), CrossEntropy(), OutputProjection(torch.eye(V)))


def nll(scores: Tensor, target: Tensor, s: float) -> float:
    return torch.nn.functional.cross_entropy(s * scores.double(), target).item()


def best_scale(scores: Tensor, target: Tensor) -> float:
    found = minimize_scalar(
        lambda log_s: nll(scores, target, math.exp(log_s)),
        bounds=(-math.log(LARGEST), math.log(LARGEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(np.exp(found.x))


@pytest.mark.parametrize("ideal", [2**-8, 0.1, 0.5, 1.0, 3.0, 19.0, 100.0, 2**8])
def test_the_scale_is_that_of_scipy(ideal: float) -> None:
    scores, target = sample(ideal)
    s = fit(scores, target)
    direct = best_scale(scores, target)
    assert s == pytest.approx(direct, rel=1e-5 if ideal > 0.01 else 1e-3)  # near 0 nearly any s is as good
    assert nll(scores, target, s) == pytest.approx(nll(scores, target, direct), abs=1e-6)
    assert s == pytest.approx(ideal, rel=0.1, abs=4 / math.sqrt(ROWS))  # up to the sample's own error


class Counting(CrossEntropy):
    """Counts the positions that it projects."""

    positions = 0

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor:
        self.positions += len(hidden)
        return super().scores(hidden, projection)


@pytest.mark.parametrize(("ideal", "passes"), [(1.0, 1), (0.5, 2), (3.0, 5), (0.1, 3), (100.0, 4)])
def test_few_passes_over_the_logits_are_enough(ideal: float, passes: int) -> None:
    """Newton's method takes 3 to 11."""
    scores, target = sample(ideal)
    loss = Counting()
    fit_scale([Features(scores, target, torch.ones(ROWS))], loss, OutputProjection(torch.eye(V)))
    assert loss.positions <= passes * ROWS


@pytest.mark.parametrize(("ideal", "passes"), [(0.1, 4.4), (0.5, 1.3), (1.0, 1.3), (3.0, 2.4), (19.0, 2.4)])
def test_a_calibration_begins_on_a_sample_and_projects_few_positions_twice(ideal: float, passes: float) -> None:
    """Positions of weight 0, or outside the fitting half, count nowhere."""
    scores, target = sample(ideal)
    fit = (torch.arange(ROWS) % 2).float()
    weight = (torch.arange(ROWS) % 10 < 8).float()
    loss, calibrator, projection = Counting(), Temperature(), OutputProjection(torch.eye(V))
    for part in Features(scores, target, weight, {"fit": fit}).chunks(300):
        calibrator.update(part, loss, projection)
    s = calibrator.finish(loss, projection)["scale"]
    fitted = (fit * weight).bool()
    assert s == pytest.approx(best_scale(scores[fitted], target[fitted]), rel=1e-5)
    assert loss.positions <= passes * int(fitted.sum())


def test_a_sample_that_is_always_right_does_not_mislead() -> None:
    scores, target = sample(1.0)
    right = scores.argmax(dim=-1) == target
    features, projection = Features(scores, target, torch.ones(ROWS)), OutputProjection(torch.eye(V))
    s = fit_scale([features[~right]], CrossEntropy(), projection, sample=features[right])
    assert s == pytest.approx(best_scale(scores, target), rel=1e-5)


@pytest.mark.parametrize("factor", [0.01, 0.25, 8.0, 50.0])
def test_larger_scores_need_a_smaller_scale(factor: float) -> None:
    scores, target = sample(1.0)
    assert fit(factor * scores, target) * factor == pytest.approx(fit(scores, target), rel=1e-5)


@pytest.mark.parametrize("shift", [-30.0, 100.0, 1e4])
def test_a_shift_of_all_scores_leaves_the_scale_that_of_scipy(shift: float) -> None:
    scores, target = sample(19.0)
    shifted = scores + shift
    assert fit(shifted, target) == pytest.approx(best_scale(shifted, target), rel=1e-4)


def test_pieces_do_not_matter() -> None:
    scores, target = sample(2.0)
    assert fit(scores, target, pieces=7) == pytest.approx(fit(scores, target), rel=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_without_a_minimum_inside_the_bounds_the_nll_is_that_at_the_best_bound(sign: float) -> None:
    """Scores that are always right, or always wrong."""
    scores, _ = sample(1.0)
    target = (sign * scores).argmax(dim=-1)
    s = fit(scores, target)
    assert 1 / LARGEST <= s <= LARGEST
    assert nll(scores, target, s) == pytest.approx(nll(scores, target, LARGEST**sign), abs=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.3, -1.7, 100.0])
@pytest.mark.parametrize("num_outputs", [2, 3, 7, 4096])
def test_logits_that_are_all_equal_leave_the_scale_at_one(constant: float, num_outputs: int) -> None:
    features = Features(torch.full((6, 1), constant), torch.zeros(6, dtype=torch.int64), torch.ones(6))
    assert fit_scale([features], CrossEntropy(), OutputProjection(torch.ones(num_outputs, 1))) == 1


def test_no_positions_leave_the_scale_at_one() -> None:
    assert fit_scale([], CrossEntropy(), OutputProjection(torch.eye(V))) == 1
    nothing = Features(torch.zeros(0, V), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert fit_scale([nothing], CrossEntropy(), OutputProjection(torch.eye(V))) == 1


def test_the_scale_belongs_to_the_scores_not_to_what_the_loss_predicts_with() -> None:
    scores, target = sample(3.0)
    features, projection = Features(scores, target, torch.ones(ROWS)), OutputProjection(torch.eye(V))
    calibrated = Square()
    calibrated.calibrate(5.0)
    for loss in (CrossEntropy(temperature=4.0), calibrated):
        assert fit_scale([features], loss, projection) == fit(scores, target)
