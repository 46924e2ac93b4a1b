"""Oracles of losses that read tokens before the target, a teacher, distances or frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from cases import NUM_OUTPUTS
from problems import WIDTH, bound, problem_for
from torch import Tensor
from torch.nn import functional as F

from losslab.contracts import Features, OutputSpec
from losslab.errors import UserError
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.distillation import Distillation
from losslab.losses.goldfish import Goldfish
from losslab.losses.harmonic import Harmonic
from losslab.losses.kl_divergence import KLDivergence
from losslab.losses.logit_adjustment import LogitAdjustment
from losslab.losses.unlikelihood import Unlikelihood, log_one_minus_softmax, seen
from losslab.models.projection import OutputProjection


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(20, NUM_OUTPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target() -> Tensor:
    return torch.randint(NUM_OUTPUTS, (20,), generator=torch.Generator().manual_seed(1))


def distilled(loss: Distillation, logits: Tensor, teacher: Tensor, target: Tensor) -> dict[str, Tensor]:
    """With a teacher of these logits."""
    loss.teacher_log_probs = lambda hidden: hidden.log_softmax(dim=-1)
    return loss.from_logits(logits, Features(logits, target, torch.ones(len(target)), {"teacher_hidden": teacher}))


@pytest.mark.parametrize("k", [2, 4, 8])
def test_goldfish_drops_one_target_in_k(k: int) -> None:
    previous = torch.randint(50_000, (20_000, 13), generator=torch.Generator().manual_seed(0))
    dropped = Goldfish(k=k).dropped(previous).double().mean().item()
    assert dropped == pytest.approx(1 / k, abs=4 * math.sqrt(1 / k / 20_000))


def test_goldfish_drops_by_those_tokens_alone_and_keeps_where_there_are_too_few() -> None:
    loss = Goldfish(k=2, context=3)
    previous = torch.randint(100, (500, 5), generator=torch.Generator().manual_seed(0))
    dropped = loss.dropped(previous)
    assert 0 < dropped.sum() < 500
    further = previous.clone()
    further[:, 3:] = 7
    assert torch.equal(loss.dropped(further), dropped)
    assert not loss.dropped(previous.masked_fill(torch.arange(5) >= 2, -1)).any()
    assert not loss.dropped(previous[:, :2]).any()


def test_goldfish_tells_apart_the_order_of_tokens() -> None:
    previous = torch.randint(100, (500, 2), generator=torch.Generator().manual_seed(0))
    loss = Goldfish(k=2, context=2)
    assert not torch.equal(loss.dropped(previous), loss.dropped(previous.flip(1)))


def test_unlikelihood_of_a_certain_candidate_is_finite_and_has_the_exact_slope() -> None:
    logits = torch.tensor([[200.0, 0.0, -1.0]], requires_grad=True)
    values = log_one_minus_softmax(logits)
    exact = torch.tensor([[0.0, -1.0]]).logsumexp(dim=-1) - 200.0
    torch.testing.assert_close(values[:, 0], exact)
    (gradient,) = torch.autograd.grad(values[0, 0], logits)
    rest = torch.tensor([0.0, -1.0]).softmax(dim=0)
    torch.testing.assert_close(gradient[0], torch.tensor([-1.0, *rest.tolist()]))


def test_log_one_minus_softmax_is_its_formula(logits: Tensor) -> None:
    torch.testing.assert_close(log_one_minus_softmax(logits), (1 - logits.softmax(dim=-1)).log(), rtol=1e-9, atol=1e-12)


def test_seen_marks_each_token_once_and_none_for_padding() -> None:
    marked = seen(torch.tensor([[2, 2, 0, -1], [-1, -1, -1, -1]]), 4)
    assert marked.tolist() == [[True, False, True, False], [False] * 4]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_forward_distillation_is_torchs_kl_with_its_factor(logits: Tensor, target: Tensor, temperature: float) -> None:
    teacher = logits.flip(0)
    soft = distilled(Distillation(temperature=temperature, alpha=1.0), logits, teacher, target)["soft"]
    expected = F.kl_div(
        (logits / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        log_target=True,
        reduction="none",
    ).sum(-1)
    torch.testing.assert_close(soft, temperature**2 * expected, rtol=1e-10, atol=1e-12)


def test_jensen_shannon_is_symmetric_at_one_half_at_most_log_two_and_switches_at_its_ends(
    logits: Tensor, target: Tensor
) -> None:
    teacher = 20 * logits.flip(0)

    def soft(divergence: str, beta: float, a: Tensor, b: Tensor) -> Tensor:
        loss = Distillation(divergence=divergence, alpha=1.0, beta=beta)  # type: ignore[arg-type]
        return distilled(loss, a, b, target)["soft"]

    half = soft("jensen_shannon", 0.5, logits, teacher)
    torch.testing.assert_close(half, soft("jensen_shannon", 0.5, teacher, logits))
    assert half.max() <= math.log(2)
    assert half.max() > 0.5
    torch.testing.assert_close(soft("jensen_shannon", 0.0, logits, teacher), soft("forward", 0.5, logits, teacher))
    torch.testing.assert_close(soft("jensen_shannon", 1.0, logits, teacher), soft("reverse", 0.5, logits, teacher))
    torch.testing.assert_close(soft("forward", 0.5, logits, logits), torch.zeros(len(logits), dtype=torch.float64))


def test_a_teacher_that_is_the_smoothed_target_teaches_label_smoothing(logits: Tensor, target: Tensor) -> None:
    smoothed = 0.9 * F.one_hot(target, NUM_OUTPUTS).double() + 0.1 / NUM_OUTPUTS
    soft = distilled(Distillation(alpha=1.0), logits, smoothed.log(), target)["soft"]
    torch.testing.assert_close(soft, KLDivergence(label_smoothing=0.1).position_loss(logits, target))


def test_without_a_teachers_share_distillation_is_cross_entropy(logits: Tensor, target: Tensor) -> None:
    terms = distilled(Distillation(alpha=0.0), logits, logits.flip(0), target)
    torch.testing.assert_close(terms["hard"], CrossEntropy().position_loss(logits, target))
    assert not terms["soft"].any()


def test_a_teacher_with_zeros_gives_finite_divergences(logits: Tensor, target: Tensor) -> None:
    teacher = logits.flip(0).masked_fill(logits < 0, -math.inf)
    for divergence in ("forward", "reverse", "symmetric", "jensen_shannon", "total_variation"):
        terms = distilled(Distillation(divergence=divergence), logits, teacher, target)  # type: ignore[arg-type]
        assert terms["soft"].isfinite().all()


def test_harmonic_probabilities_are_powers_of_distances() -> None:
    features, weight = problem_for(Harmonic(), 9)
    loss = bound(Harmonic(exponent=3.0))
    log_p = loss.predict_log_probs(loss.scores(features.hidden, OutputProjection(weight)))
    powers = (features.hidden[:, None] - weight).norm(dim=-1) ** -3.0
    torch.testing.assert_close(log_p.exp().double(), powers / powers.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_harmonic_on_a_class_centre_is_certain_of_it_and_finite() -> None:
    weight = torch.eye(WIDTH)
    hidden = weight.clone().requires_grad_()
    result = bound(Harmonic())(Features(hidden, torch.arange(WIDTH), torch.ones(WIDTH)), OutputProjection(weight))
    assert result.total < 0.1
    assert torch.autograd.grad(result.total, hidden)[0].isfinite().all()


def test_harmonic_is_exact_under_bf16_autocast() -> None:
    features, weight = problem_for(Harmonic(), 9)
    single = Features(features.hidden.float(), features.target, features.weight.float())
    exact = bound(Harmonic())(single, OutputProjection(weight.float())).total
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(bound(Harmonic())(single, OutputProjection(weight.float())).total, exact)


def test_logit_adjustment_takes_the_prior_out_of_its_predictions(logits: Tensor, target: Tensor) -> None:
    counts = torch.tensor([90.0, 9.0, 1.0], dtype=torch.float64)
    loss = LogitAdjustment(tau=1.0)
    loss.bind(OutputSpec(num_outputs=3, hidden_size=2, generator=torch.Generator(), class_counts=counts))
    prior = ((counts + 1) / (counts + 1).sum()).float()
    scores = loss.map_logits(torch.zeros(1, 3))
    torch.testing.assert_close(scores.exp(), prior[None])
    torch.testing.assert_close(loss.predict_log_probs(scores).exp(), torch.full((1, 3), 1 / 3))
    posterior = loss.posterior(scores)
    assert posterior is not None
    torch.testing.assert_close(posterior, prior[None])
    torch.testing.assert_close(loss.position_loss(scores, torch.tensor([0])), -prior[:1].log())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Goldfish(k=1), r"loss\.k must be 2 or above, not 1"),
        (lambda: Goldfish(context=0), r"loss\.context must be 1 or above, not 0"),
        (lambda: Unlikelihood(alpha=-1.0), r"loss\.alpha must be 0 or above and finite, not -1.0"),
        (lambda: Unlikelihood(window=0), r"loss\.window must be 1 or above, not 0"),
        (lambda: Harmonic(exponent=0.0), r"loss\.exponent must be above 0 and finite, not 0.0"),
        (lambda: LogitAdjustment(tau=math.nan), r"loss\.tau must be 0 or above and finite, not nan"),
        (lambda: Distillation(temperature=0.0), r"loss\.temperature must be above 0 and finite, not 0.0"),
        (lambda: Distillation(alpha=1.5), r"loss\.alpha must be in \[0, 1\], not 1.5"),
        (lambda: Distillation(beta=-0.1), r"loss\.beta must be in \[0, 1\], not -0.1"),
        (lambda: CrossEntropy(label_smoothing=1.0), r"loss\.label_smoothing must be in \[0, 1\), not 1.0"),
        (lambda: CrossEntropy(padding_id=3), r"loss\.padding_id is the class that annotated_transformer leaves out"),
        (lambda: KLDivergence(smoothing_convention="annotated_transformer"), r"loss\.padding_id is the class"),
        (lambda: rush(padding_id=-1), r"loss\.padding_id must be 0 or above, not -1"),
        (lambda: bound(rush(padding_id=7)), r"loss\.padding_id=7 is no class: there are 7"),
    ],
)
def test_values_out_of_range_are_refused_in_a_sentence(make: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


def rush(padding_id: int) -> CrossEntropy:
    return CrossEntropy(label_smoothing=0.1, smoothing_convention="annotated_transformer", padding_id=padding_id)


def test_fairseqs_smoothing_is_torchs_with_another_epsilon(logits: Tensor, target: Tensor) -> None:
    """ε V / (V − 1)."""
    fairseq = CrossEntropy(label_smoothing=0.1, smoothing_convention="fairseq").position_loss(logits, target)
    other = 0.1 * NUM_OUTPUTS / (NUM_OUTPUTS - 1)
    torch.testing.assert_close(fairseq, F.cross_entropy(logits, target, reduction="none", label_smoothing=other))
