"""Penalties that join a loss by a key, and sums of losses."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from cases import NUM_OUTPUTS
from problems import bound, problem_for
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.choices import chosen
from losslab.config.binding import bind_components
from losslab.config.check import check_run
from losslab.config.compose import compose_plain
from losslab.config.schema import RegularizersConfig
from losslab.conformance import check
from losslab.conformance.processes import two_ranks_equal_one
from losslab.conformance.subject import single
from losslab.contracts import Features, LossSum, TargetKind
from losslab.errors import UserError
from losslab.losses.base import Loss
from losslab.losses.brier import Brier
from losslab.losses.confidence_penalty import ConfidencePenalty
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.distillation import Distillation
from losslab.losses.entmax import Entmax
from losslab.losses.focal import Focal
from losslab.losses.goldfish import Goldfish
from losslab.losses.harmonic import Harmonic
from losslab.losses.hinge import Hinge
from losslab.losses.regularizers import Regularized, regularize
from losslab.losses.square import Square
from losslab.losses.stablemax import StableMax
from losslab.losses.sum import Sum
from losslab.losses.unlikelihood import Unlikelihood
from losslab.metrics.class_metrics import ClassMetrics
from losslab.models.projection import OutputProjection
from losslab.training.reduce import StepReducer

ALL = {"z_loss": 0.01, "confidence_penalty": 0.2, "mu_loss": 0.3, "soft_cap": 5.0}


class Errors(Loss):
    target_kind = TargetKind.VALUES

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits - target).abs().sum(dim=-1)


each_inner = pytest.mark.parametrize(
    "inner",
    [
        CrossEntropy(label_smoothing=0.1, temperature=2.0),
        Focal(),
        Brier(),
        Goldfish(k=2, context=1),
        Harmonic(),
        Unlikelihood(),
        Distillation(temperature=2.0),
    ],
    ids=lambda loss: type(loss).__name__,
)


def run(loss: Loss) -> tuple[LossSum, Features, Tensor]:
    features, projection = problem_for(loss, 24)
    features = replace(single(features), hidden=features.hidden.float().requires_grad_())
    weight = projection.float().requires_grad_()
    return bound(loss)(features, OutputProjection(weight)), features, weight


@each_inner
@pytest.mark.parametrize("settings", [{key: value} for key, value in ALL.items()] + [ALL], ids=lambda s: "+".join(s))
def test_any_softmax_loss_keeps_the_contract_with_any_of_them(inner: Loss, settings: dict[str, Any]) -> None:
    check(Regularized(inner, **settings))


def test_penalties_are_their_formulas_over_plain_logits() -> None:
    result, features, weight = run(Regularized(CrossEntropy(), **ALL))
    z = 5.0 * torch.tanh(features.hidden @ weight.T / 5.0)
    log_p = z.log_softmax(dim=-1)
    expected = {
        "loss": F.cross_entropy(z, features.target, reduction="none"),
        "z_loss": 0.01 * z.logsumexp(dim=-1) ** 2,
        "confidence_penalty": 0.2 * (log_p.exp() * log_p).sum(dim=-1),
        "mu_loss": 0.3 * weight.mean(dim=0).square().sum().expand(len(z)),
    }
    for name, values in expected.items():
        torch.testing.assert_close(result.terms[name], (features.weight * values).sum().detach())
    whole = (features.weight * torch.stack(list(expected.values())).sum(dim=0)).sum()
    torch.testing.assert_close(result.total, whole)
    for actual, reference in zip(
        torch.autograd.grad(result.total, [features.hidden, weight]),
        torch.autograd.grad(whole, [features.hidden, weight]),
        strict=True,
    ):
        assert (actual - reference).norm() <= 1e-6 * reference.norm()


def test_z_loss_alone_keeps_the_quick_way_and_tilts_each_row_by_twice_lambda_logsumexp() -> None:
    loss = Regularized(CrossEntropy(), z_loss=0.01)
    assert (loss.written_as(), loss.cost_class) == ("from_statistics", "F2")
    logits = torch.randn(
        5, NUM_OUTPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    features = Features(logits, torch.arange(5), torch.ones(5))
    values = loss.from_logits(logits, features)
    assert isinstance(values, dict)
    (gradient,) = torch.autograd.grad(sum(value.sum() for value in values.values()), logits)
    torch.testing.assert_close(gradient.sum(dim=-1), 0.02 * logits.logsumexp(dim=-1))


def test_confidence_penalty_is_the_loss_of_that_name() -> None:
    own, *_ = run(Regularized(CrossEntropy(), confidence_penalty=0.3))
    named, *_ = run(ConfidencePenalty(beta=0.3))
    torch.testing.assert_close(own.total, named.total)


def test_predictions_go_through_the_soft_cap_and_ignore_penalties() -> None:
    features, projection = problem_for(CrossEntropy(), 5)
    hidden, given = 100 * features.hidden.float(), OutputProjection(projection.float())
    loss = bound(Regularized(CrossEntropy(), **ALL))
    log_p = loss.predict_log_probs(loss.scores(hidden, given))
    torch.testing.assert_close(log_p, (5 * torch.tanh(given(hidden) / 5)).log_softmax(dim=-1))
    assert log_p.min() > -2 * 5.0 - torch.tensor(float(NUM_OUTPUTS)).log()


def test_all_off_is_the_loss_itself() -> None:
    loss = Focal()
    assert regularize(loss, asdict(RegularizersConfig())) is loss
    assert isinstance(regularize(loss, {**asdict(RegularizersConfig()), "z_loss": 1e-4}), Regularized)


@pytest.mark.parametrize(
    "loss", [Square(), Hinge(), Entmax(), StableMax(), Errors()], ids=lambda loss: type(loss).__name__
)
def test_a_loss_without_softmax_is_refused_by_name(loss: Loss) -> None:
    with pytest.raises(UserError, match=f"predict softmax.*{chosen('loss', loss)} is none"):
        Regularized(loss, z_loss=0.1)


@pytest.mark.parametrize(
    ("key", "value"), [("z_loss", -1.0), ("confidence_penalty", float("nan")), ("mu_loss", -0.1), ("soft_cap", 0.0)]
)
def test_values_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"regularizers\.{key} must be"):
        Regularized(CrossEntropy(), **{key: value})


def test_terms_of_a_sum_are_logged_apart_and_add_up() -> None:
    result, *_ = run(Sum(first=Focal(), second=Unlikelihood(window=2), weights={"first": 2.0}))
    assert list(result.terms) == ["first", "second"]
    torch.testing.assert_close(result.total, result.terms["first"] + result.terms["second"])
    alone, *_ = run(Focal())
    torch.testing.assert_close(result.terms["first"], 2 * alone.total.detach())


def test_a_sum_predicts_as_its_first_loss() -> None:
    features, projection = problem_for(CrossEntropy(), 5)
    loss = bound(Sum(first=Square(), second=CrossEntropy()))
    loss.calibrate(0.5)
    logits = (features.hidden @ projection.T).float()
    torch.testing.assert_close(loss.predict_log_probs(logits), (0.5 * logits).log_softmax(dim=-1))


PADDED = CrossEntropy(label_smoothing=0.1, smoothing_convention="annotated_transformer", padding_id=0)


class Foreign(nn.Module):
    pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"first": CrossEntropy()}, "two losses or more"),
        ({"first": CrossEntropy(), "second": Foreign()}, r"loss\.second must be a loss"),
        (
            {"first": CrossEntropy(), "second": Brier(), "weights": {"third": 1.0}},
            r"third weighs no loss: .*first, second",
        ),
        ({"first": CrossEntropy(), "second": Brier(), "weights": {"first": 0.0}}, r"weights\.first must be above 0"),
        ({"first": CrossEntropy(), "second": Errors()}, "want the same targets"),
        ({"first": CrossEntropy(), "second": Harmonic()}, "harmonic has products of its own"),
        ({"first": CrossEntropy(), "second": Distillation()}, "loss.second=distillation has a teacher"),
        ({"first": CrossEntropy(), "second": Goldfish()}, "goldfish ignores positions of its own"),
        ({"first": CrossEntropy(), "second": PADDED}, "cross_entropy ignores positions of its own"),
        ({"first": CrossEntropy(), "second": CrossEntropy(class_weights=[1.0, 2.0])}, "divides by weights of its own"),
        ({"first": CrossEntropy(), "second": CrossEntropy(backend="dense")}, "backend=dense computes plain"),
    ],
)
def test_losses_that_cannot_be_added_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Sum(**arguments)


def test_a_term_with_a_regularizers_name_is_not_overwritten() -> None:
    class Own(CrossEntropy):
        terms = ("ce", "z_loss")

    with pytest.raises(UserError, match="has a term named z_loss itself"):
        Regularized(Own(), z_loss=0.1)
    Regularized(Own(), confidence_penalty=0.1)


CLASS_WEIGHTS = [0.1, 0.5, 1.0, 2.0, 4.0, 7.0, 9.0]
PENALTIES = {"z_loss": 0.3, "confidence_penalty": 0.2, "mu_loss": 0.4}
each_penalty = pytest.mark.parametrize(
    "penalties", [*({name: PENALTIES[name]} for name in PENALTIES), PENALTIES], ids=str
)


def weighted_mean(features: Features, weight: Tensor, class_weights: list[float], **penalties: float) -> Tensor:
    """Cross-entropy divided by its class weights, and penalties by positions: plain formulas, in float64."""
    logits = features.hidden @ weight.T
    losses = F.cross_entropy(logits, features.target, torch.tensor(class_weights).double(), reduction="none")
    share = torch.tensor(class_weights).double()[features.target]
    counts = features.weight
    log_p = logits.log_softmax(dim=-1)
    means = {
        "z_loss": (counts * logits.logsumexp(dim=-1).square()).sum() / counts.sum(),
        "confidence_penalty": (counts * (log_p.exp() * log_p).sum(dim=-1)).sum() / counts.sum(),
        "mu_loss": weight.mean(dim=0).square().sum(),
    }
    own = (counts * losses).sum() / (counts * share).sum()
    return own + sum(factor * means[name] for name, factor in penalties.items())


@each_penalty
@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_class_weights_change_no_penalty(penalties: dict[str, float], factor: float) -> None:
    loss = bound(Regularized(CrossEntropy(class_weights=[factor * w for w in CLASS_WEIGHTS]), **penalties))
    exact, weight = problem_for(loss, 41)
    hidden, projection = exact.hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    expected = weighted_mean(replace(exact, hidden=hidden), projection, CLASS_WEIGHTS, **penalties)
    wanted = torch.autograd.grad(expected, [hidden, projection])
    own_hidden, own_weight = exact.hidden.float().requires_grad_(), weight.float().requires_grad_()
    result: LossSum = loss(replace(single(exact), hidden=own_hidden), OutputProjection(own_weight))
    mean = result.total / result.weight
    assert mean.item() == pytest.approx(expected.item(), rel=1e-6)
    for found, right in zip(torch.autograd.grad(mean, [own_hidden, own_weight]), wanted, strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-5, atol=1e-6)


@each_penalty
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_step_has_the_gradient_of_its_whole_batch_however_it_is_split(
    penalties: dict[str, float], parts: int
) -> None:
    loss = bound(Regularized(CrossEntropy(class_weights=CLASS_WEIGHTS), **penalties)).train()
    exact, weight = problem_for(loss, 40)
    projection = weight.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(weighted_mean(exact, projection, CLASS_WEIGHTS, **penalties), projection)
    own = nn.Parameter(weight.float())
    reducer = StepReducer(nominal_weight=3.0, accumulate=parts, ranks=1)
    features = single(exact)
    assert loss.reads_step == (set(penalties) != {"mu_loss"})
    loss.prepare_step(features.target, features.weight)
    for part in features.chunks(40 // parts):
        (reducer.add(loss(part, OutputProjection(own))) / parts).backward()
    sums = reducer.finish()
    sums.rescale([own])
    torch.testing.assert_close(own.grad.double(), wanted, rtol=1e-5, atol=1e-6)
    expected = weighted_mean(exact, weight, CLASS_WEIGHTS, **penalties).item()
    assert sums.objective == pytest.approx(expected, rel=1e-6)
    positions = exact.weight.sum()
    if "z_loss" in penalties:
        z = (exact.weight * (exact.hidden @ weight.T).logsumexp(dim=-1).square()).sum() / positions
        assert sums.terms["z_loss"] == pytest.approx(penalties["z_loss"] * z.item(), rel=1e-6)


@each_penalty
def test_an_evaluation_in_chunks_reports_the_objective_of_the_whole(penalties: dict[str, float]) -> None:
    loss = bound(Regularized(CrossEntropy(class_weights=CLASS_WEIGHTS), **penalties)).eval()
    exact, weight = problem_for(loss, 40)
    extras = {"fit": torch.zeros(40, dtype=torch.uint8), "bytes": torch.ones(40)}
    metrics = ClassMetrics(1.0, held_out=False)
    for part in replace(single(exact), extras=extras).chunks(7):
        metrics.update(part, loss, OutputProjection(weight.float()))
    expected = weighted_mean(exact, weight, CLASS_WEIGHTS, **penalties).item()
    assert metrics.values()["objective"] == pytest.approx(expected, rel=1e-6)


def test_two_ranks_have_the_penalties_of_one() -> None:
    typed = ["loss.class_weights=[0.1,0.5,1,2,4,7,9,3,2,1,5]", "regularizers.z_loss=0.3", "loss.label_smoothing=0.1"]
    assert two_ranks_equal_one(bind_components(check_run(compose_plain(typed))))


@pytest.mark.parametrize("parts", [1, 4])
def test_the_terms_of_a_sum_are_means_over_positions_however_a_step_is_split(parts: int) -> None:
    """Terms that divide by class weights are refused: what a sum divides by is the number of positions."""
    loss = bound(Sum(first=CrossEntropy(), second=ConfidencePenalty(beta=0.2), weights={"second": 0.5}))
    exact, weight = problem_for(loss, 40)
    logits = exact.hidden @ weight.T
    log_p = logits.log_softmax(dim=-1)
    own = F.cross_entropy(logits, exact.target, reduction="none")
    terms = {"first": own, "second": 0.5 * (own + 0.2 * (log_p.exp() * log_p).sum(dim=-1))}
    means = {name: ((exact.weight * v).sum() / exact.weight.sum()).item() for name, v in terms.items()}
    reducer = StepReducer(nominal_weight=3.0, accumulate=parts, ranks=1)
    for part in single(exact).chunks(40 // parts):
        reducer.add(loss(part, OutputProjection(weight.float())))
    sums = reducer.finish()
    assert sums.terms == pytest.approx(means, rel=1e-6)
    assert sums.objective == pytest.approx(sum(means.values()), rel=1e-6)
