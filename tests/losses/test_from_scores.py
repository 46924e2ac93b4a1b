"""Sums from scores that are at hand, as an evaluation takes them, against `forward`, which makes its own."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, Case
from problems import bound, problem_for
from torch import Tensor

from losslab.conformance.subject import single
from losslab.contracts import Features, LossSum, Projection, TargetKind
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.focal import Focal
from losslab.losses.regularizers import Regularized
from losslab.models.projection import OutputProjection

WEIGHTS = [0.5, 1.0, 2.0, 0.25, 1.5, 3.0, 1.0]


def sums(loss: Loss) -> tuple[LossSum | None, LossSum]:
    """From scores, and from `forward`."""
    drawn, weight = problem_for(loss, 37)
    features, projection = single(drawn).kept(), OutputProjection(weight.float())
    with torch.no_grad():
        logits = loss.scores(features.hidden, projection)
        factor = loss.softmax_factor()
        logsumexp = None if factor is None else (factor * logits).logsumexp(dim=-1)
        return loss.from_scores(features, projection, logits, logsumexp), loss(features, projection)


def assert_same(found: LossSum | None, expected: LossSum) -> None:
    assert found is not None
    assert found.total.item() == pytest.approx(expected.total.item(), rel=2e-5, abs=1e-6)
    assert found.weight.item() == pytest.approx(expected.weight.item(), rel=1e-6)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.loss.target_kind is TargetKind.CLASSES and c.loss.position_wise], ids=str
)
def test_scores_at_hand_give_the_sums_of_forward(case: Case) -> None:
    assert_same(*sums(bound(case.make())))


@pytest.mark.parametrize("name", ["z_loss", "confidence_penalty", "soft_cap"])
@pytest.mark.parametrize("inner", [CrossEntropy, Focal, Brier, lambda: CrossEntropy(temperature=2.0)])
def test_penalties_of_a_position_are_in_them(name: str, inner: type[Loss]) -> None:
    assert_same(*sums(bound(Regularized(inner(), **{name: 0.7}))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Regularized(CrossEntropy(), mu_loss=0.5),
        lambda: Regularized(CrossEntropy(class_weights=WEIGHTS), z_loss=0.5),
    ],
)
def test_what_depends_on_more_is_left_to_forward(make: type[Loss]) -> None:
    assert sums(bound(make()))[0] is None


class Doubled(CrossEntropy):
    """Overrides forward, and does not say that it is a quicker way to the same."""

    def forward(self, features: Features, projection: Projection) -> LossSum:
        result = super().forward(features, projection)
        return LossSum(2 * result.total, result.weight)


class Sharper(CrossEntropy):
    """Predicts otherwise than its parent."""

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        return (2 * logits).log_softmax(dim=-1)


def test_a_forward_of_ones_own_is_called() -> None:
    assert sums(bound(Doubled()))[0] is None


def test_a_prediction_of_ones_own_is_no_softmax_of_its_parent_s() -> None:
    assert bound(Sharper()).softmax_factor() is None
    assert_same(*sums(bound(Sharper())))
