"""Properties that every loss must have, over the rows of `cases.py`."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from cases import CASES, NUM_OUTPUTS, SEQUENCE_CASES, Case
from problems import bound, problem_for
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features, LossSum, TargetKind, added
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.sampled_softmax import SampledSoftmax
from losslab.losses.square import Square
from losslab.losses.sum import Sum
from losslab.models.projection import OutputProjection

CONF = Path(__file__).parents[2] / "conf" / "loss"
# Sums of a few dozen float32 terms agree with exact ones, and with each other in any order, to a few units of 6e-8.
FLOAT32 = 2e-6
BF16_ROUNDING = torch.finfo(torch.bfloat16).eps / 2

EVERY = [*CASES, *SEQUENCE_CASES]
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@dataclass(frozen=True)
class Problem:
    """Positions and a projection; float64, hidden states and projection leaves."""

    whole: Features
    projection: Tensor

    @property
    def hidden(self) -> Tensor:
        return self.whole.hidden

    @property
    def weight(self) -> Tensor:
        return self.whole.weight

    def features(self, dtype: torch.dtype = torch.float32, rows: Tensor | slice = slice(None)) -> Features:
        def cast(tensor: Tensor) -> Tensor:
            return tensor.float() if tensor.is_floating_point() else tensor

        extras = {name: cast(value[rows]) for name, value in self.whole.extras.items()}
        whole = self.whole
        return Features(whole.hidden[rows].to(dtype), cast(whole.target[rows]), whole.weight[rows].float(), extras)

    def scores(self, case: Case) -> Tensor:
        return case.scores(self.hidden, self.projection, None)


@pytest.fixture
def case() -> Case:
    """Unless a test goes through all."""
    return CASES[0]


@pytest.fixture
def problem(case: Case) -> Problem:
    features, projection = problem_for(case, 24)
    return Problem(replace(features, hidden=features.hidden.requires_grad_()), projection.requires_grad_())


def gradients(total: Tensor, problem: Problem) -> list[Tensor]:
    return list(torch.autograd.grad(total, [problem.hidden, problem.projection]))


def reference_total(case: Case, problem: Problem) -> Tensor:
    return (selected(case, problem).weight * case.values(problem.scores(case), problem.whole)).sum()


def selected(case: Case, problem: Problem) -> Features:
    """With the weights that the loss gives them."""
    return bound(case).select(problem.whole)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).norm() / expected.norm()).item()


def assert_same_sums(actual: LossSum, expected: LossSum) -> None:
    torch.testing.assert_close(actual.total, expected.total, rtol=FLOAT32, atol=0)
    torch.testing.assert_close(actual.weight, expected.weight, rtol=FLOAT32, atol=0)


def test_every_yaml_has_a_case_and_every_case_a_yaml() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == {case.name for case in EVERY}


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_case_is_about_the_class_of_its_yaml(case: Case) -> None:
    content = yaml.safe_load((CONF / f"{case.name}.yaml").read_text())
    assert content["_target_"] == f"{case.loss.__module__}.{case.loss.__qualname__}"
    chosen = {key.partition("@")[2] for entry in content.get("defaults", []) if entry != "_self_" for key in entry}
    assert set(case.kwargs) <= set(content) | chosen


@pytest.mark.parametrize("case", [case for case in EVERY if case.loss is not Sum], ids=str)
def test_yaml_holds_the_defaults_of_the_constructor(case: Case) -> None:
    """But for the sum's, which is composed of other files."""
    content = yaml.safe_load((CONF / f"{case.name}.yaml").read_text())
    del content["_target_"]
    content.pop("defaults", None)
    defaults = case.loss.__init__.__kwdefaults__ or {}
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()} == content


@each_case
def test_float64_values_and_gradients_equal_the_reference(case: Case, problem: Problem) -> None:
    scores = problem.scores(case)
    counted = selected(case, problem).weight != 0  # what a loss ignores has no value
    values = added(bound(case).from_logits(scores, problem.whole))[counted]
    expected = case.values(problem.scores(case), problem.whole)[counted]
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)
    weight = problem.weight[counted]
    actual_gradients = gradients((weight * values).sum(), problem)
    for actual, reference in zip(actual_gradients, gradients((weight * expected).sum(), problem), strict=True):
        assert relative_error(actual, reference) < 1e-12


@each_case
def test_sums_and_gradients_of_forward_equal_the_reference(case: Case, problem: Problem) -> None:
    result = bound(case)(problem.features(), OutputProjection(problem.projection.float()))
    expected = reference_total(case, problem)
    assert result.total.item() == pytest.approx(expected.item(), rel=FLOAT32)
    weight = selected(case, problem).weight * case.share(problem.whole)
    assert result.weight.item() == pytest.approx(weight.sum().item())
    for actual, reference in zip(gradients(result.total, problem), gradients(expected, problem), strict=True):
        assert relative_error(actual, reference) < FLOAT32


@pytest.mark.parametrize("case", [case for case in CASES if not case.has_detached], ids=str)
def test_gradcheck(case: Case, problem: Problem) -> None:
    loss = bound(case)
    scores = problem.scores(case)[:6].detach().requires_grad_()
    features = problem.whole[:6]
    assert torch.autograd.gradcheck(lambda z: added(loss.from_logits(z, features)), scores)


@each_case
def test_sums_are_float32_scalars_and_only_the_total_has_a_graph(case: Case, problem: Problem) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        result = bound(case)(problem.features(dtype), OutputProjection(problem.projection.to(dtype)))
        assert result.total.dtype == result.weight.dtype == torch.float32
        assert result.total.shape == result.weight.shape == ()
        assert result.total.requires_grad
        assert not result.weight.requires_grad


@each_case
def test_rows_of_weight_zero_change_nothing_whatever_they_hold(case: Case, problem: Problem) -> None:
    loss, projection = bound(case), OutputProjection(problem.projection.float())
    counted = (problem.weight != 0).nonzero()[:, 0]
    expected = loss(problem.features(rows=counted), projection)
    features = problem.features()
    hidden = features.hidden.masked_fill((problem.weight == 0)[:, None], torch.nan)
    result = loss(replace(features, hidden=hidden), projection)
    assert torch.equal(result.total, expected.total)
    assert torch.equal(result.weight, expected.weight)
    actual, reference = gradients(result.total, problem), gradients(expected.total, problem)
    assert torch.equal(actual[0], reference[0])
    assert torch.equal(actual[1], reference[1])


@each_case
@pytest.mark.parametrize("size", [1, 5, 23])
def test_sums_over_pieces_add_up(case: Case, problem: Problem, size: int) -> None:
    loss, projection = bound(case), OutputProjection(problem.projection.float())
    whole = loss(problem.features(), projection)
    parts = [loss(piece, projection) for piece in problem.features().chunks(size)]
    total, weight = sum(part.total for part in parts), sum(part.weight for part in parts)
    assert_same_sums(LossSum(total, weight), whole)
    for actual, reference in zip(gradients(total, problem), gradients(whole.total, problem), strict=True):
        assert relative_error(actual, reference) < FLOAT32


@each_case
def test_order_of_positions_does_not_matter(case: Case, problem: Problem) -> None:
    loss, projection = bound(case), OutputProjection(problem.projection.float())
    order = torch.randperm(len(problem.weight), generator=torch.Generator().manual_seed(2))
    whole, shuffled = loss(problem.features(), projection), loss(problem.features(rows=order), projection)
    assert_same_sums(shuffled, whole)
    for actual, reference in zip(gradients(shuffled.total, problem), gradients(whole.total, problem), strict=True):
        assert relative_error(actual, reference) < FLOAT32


@each_case
@pytest.mark.parametrize("autocast", [False, True])
def test_all_ignored_gives_zero_with_zero_connected_gradients(case: Case, problem: Problem, autocast: bool) -> None:
    features = problem.features()
    ignored = replace(features, weight=torch.zeros_like(features.weight))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = bound(case)(ignored, OutputProjection(problem.projection.float()))
    assert result.total.item() == 0
    assert result.weight.item() == 0
    for gradient in gradients(result.total, problem):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@each_case
@pytest.mark.parametrize("autocast", [False, True])
def test_logits_of_ten_thousand_stay_finite(case: Case, autocast: bool) -> None:
    num_outputs = bound(case).num_outputs(case.size)
    rows = 1e4 * torch.stack([torch.ones(num_outputs), -torch.ones(num_outputs), *(2 * torch.eye(num_outputs) - 1)])
    features, _ = problem_for(case, len(rows))
    target = features.target
    if case.loss.target_kind is TargetKind.CLASSES:  # both where the largest logit is and where it is not
        target = torch.tensor([0, 0, 0, *range(num_outputs - 1)])
    logits = rows.clone().requires_grad_()
    extras = {name: value.float() if value.is_floating_point() else value for name, value in features.extras.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = bound(case, width=num_outputs)(
            Features(logits, target, torch.ones(len(rows)), extras), OutputProjection(torch.eye(num_outputs))
        )
    assert result.total.isfinite()
    assert torch.autograd.grad(result.total, logits)[0].isfinite().all()


@pytest.mark.parametrize("case", [case for case in CASES if case.scores is F.linear], ids=str)
def test_only_the_projection_is_bf16_under_autocast(case: Case, problem: Problem) -> None:
    projection = OutputProjection(problem.projection.float())
    with torch.autocast("cpu", torch.bfloat16):
        result = bound(case)(problem.features(), projection)
        logits = projection(problem.hidden.float())
    assert logits.dtype == torch.bfloat16
    weight = selected(case, problem).weight
    expected = (weight * case.values(logits.double(), problem.whole)).sum().item()
    assert result.total.dtype == torch.float32
    past_logits = case.loss in (Square, SampledSoftmax) or bound(case).linear_weights(NUM_OUTPUTS) is not None
    assert result.total.item() == pytest.approx(expected, rel=BF16_ROUNDING if past_logits else FLOAT32)


def test_a_loss_that_multiplies_matrices_does_so_in_float32_under_autocast(problem: Problem) -> None:
    """None of our own does; a person's may, and autocast would round its factors."""

    class Mixing(CrossEntropy):
        def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return (logits @ torch.full((NUM_OUTPUTS, 1), 0.1))[:, 0]

    projection = OutputProjection(problem.projection.float())
    with torch.autocast("cpu", torch.bfloat16):
        logits = projection(problem.hidden.float()).double()
        total = Mixing()(problem.features(), projection).total
    assert total.item() == pytest.approx((problem.weight * 0.1 * logits.sum(dim=-1)).sum().item(), rel=FLOAT32)


@each_case
def test_bf16_error_is_at_most_that_of_the_reference_in_bf16(case: Case, problem: Problem) -> None:
    """Errors of every position's loss and of both gradients, against float64, give or take one rounding to bf16."""
    loss, projection = bound(case), OutputProjection(problem.projection.float())
    ones = replace(problem.features(), weight=torch.ones(len(problem.weight)))
    kept = loss.select(ones).weight
    exact = kept * case.values(problem.scores(case), problem.whole)
    hidden, weight = problem.hidden.bfloat16(), problem.projection.bfloat16()
    eager_values = kept * case.values(case.scores(hidden, weight, None), problem.whole)
    with torch.autocast("cpu", torch.bfloat16):
        values = torch.stack([loss(piece, projection).total for piece in ones.chunks(1)])
    assert values.dtype == torch.float32
    assert relative_error(values, exact) <= relative_error(eager_values, exact) + BF16_ROUNDING
    actual, eager, reference = (gradients(total.sum(), problem) for total in (values, eager_values, exact))
    for gradient, eager_gradient, expected in zip(actual, eager, reference, strict=True):
        assert relative_error(gradient, expected) <= relative_error(eager_gradient, expected) + BF16_ROUNDING


@each_case
def test_state_dict_round_trip(case: Case, problem: Problem) -> None:
    loss, projection = bound(case), OutputProjection(problem.projection.float())
    loss.calibrate(2.5)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    restored = bound(case)
    restored.load_state_dict(torch.load(file, weights_only=True))
    logits = problem.scores(case).float()
    predict = "predict_values" if case.loss.target_kind is TargetKind.VALUES else "predict_log_probs"
    assert torch.equal(getattr(restored, predict)(logits), getattr(loss, predict)(logits))
    assert torch.equal(restored(problem.features(), projection).total, loss(problem.features(), projection).total)


@each_case
def test_predictions_have_the_order_of_the_scores(case: Case, problem: Problem) -> None:
    loss, features = bound(case), problem.features()
    scores = loss.scores(features.hidden, OutputProjection(problem.projection.float()))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), problem.scores(case), rtol=FLOAT32, atol=FLOAT32)
    if case.loss.target_kind is TargetKind.VALUES:
        assert loss.predict_values(scores).shape == features.target.shape
        return
    log_probs = loss.predict_log_probs(scores)
    if case.loss.target_kind is not TargetKind.LABELS:
        torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(len(scores)))
    if case.is_sparse:
        assert torch.equal(log_probs.argmax(dim=-1), scores.argmax(dim=-1))
    elif case.keeps_order:
        assert torch.equal(log_probs.argsort(dim=-1), scores.argsort(dim=-1))
