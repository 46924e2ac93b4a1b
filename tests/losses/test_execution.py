"""Chunks, each with its gradient, against all logits at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from cases import CASES, NUM_OUTPUTS, NUM_VALUES, Case
from problems import WIDTH, bound, problem_for, wrong_targets
from torch import Tensor, nn

from losslab.conformance.subject import single
from losslab.contracts import Features, LossSum, OutputSpec, Projection, TargetKind, added
from losslab.errors import UserError
from losslab.losses import base, execution
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.models.projection import OutputProjection

ROWS = 23
EXACT = 1e-6

each_case = pytest.mark.parametrize("case", CASES, ids=str)


class Focused(Loss):
    """A function of log p_y alone, with a parameter."""

    def bind(self, spec: OutputSpec) -> None:
        self.gamma = nn.Parameter(torch.tensor(1.5))

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -((1 - log_prob.exp()) ** self.gamma) * log_prob


class PullNorm(Loss):
    """A function of all logits, with a parameter, and of no softmax."""

    def bind(self, spec: OutputSpec) -> None:
        self.centre = nn.Parameter(torch.linspace(-1, 1, spec.num_outputs))

    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits - self.centre).square().mean(dim=-1) - logits.gather(-1, target[:, None])[:, 0]


class Distances(Loss):
    """Scores of its own."""

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor:
        return -torch.cdist(hidden.float(), projection.weight.float()).square()

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -log_prob


class Leaning(Loss):
    """A function of more than logits and target."""

    def values(self, features: Features, projection: Projection) -> Tensor:
        return (projection(features.hidden).float() * features.extras["lean"][:, None]).square().sum(dim=-1)


class Constant(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.ones(len(target))


OWN = [Focused, PullNorm, Distances, Leaning, Constant]


def make_losses() -> Iterator[tuple[str, Loss]]:
    for case in CASES:
        yield str(case), bound(case.make())
    for kind in OWN:
        yield kind.__name__, bound(kind())


each_loss = pytest.mark.parametrize("loss", [pytest.param(loss, id=name) for name, loss in make_losses()])


@pytest.fixture(autouse=True)
def seven_rows_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(execution._PROJECTED, "cpu", 7 * 4 * NUM_OUTPUTS)
    for budget in (execution._FEATURES, execution._GRAPH):
        monkeypatch.setitem(budget, "cpu", 7 * 2 * NUM_OUTPUTS)  # three of them at a time in the graph


@pytest.fixture
def loss() -> Loss:
    """Unless a test goes through all."""
    return bound(Focused())


@pytest.fixture
def features(loss: Loss) -> Features:
    own, _ = problem_for(loss, ROWS)
    own = single(own)
    lean = torch.rand(ROWS, generator=torch.Generator().manual_seed(0))
    return replace(own, extras={**own.extras, "lean": lean})


def leaves(loss: Loss, features: Features, *, bias: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    num_outputs = loss.num_outputs(NUM_VALUES if loss.target_kind is TargetKind.VALUES else NUM_OUTPUTS)
    weight = torch.randn(num_outputs, WIDTH, generator=generator)
    own = [features.hidden.clone(), weight, torch.randn(num_outputs, generator=generator)]
    return [leaf.requires_grad_() for leaf in own[: 3 if bias else 2]]


def run(loss: Loss, features: Features, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> LossSum:
    result: LossSum = loss(replace(features, hidden=hidden), OutputProjection(weight, bias))
    return result


def run_dense(loss: Loss, features: Features, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """All logits at once, by autograd; of those that have a weight, as nothing else is part of the contract."""
    own = loss.select(replace(features, hidden=hidden)).kept()
    projection = OutputProjection(weight, bias)
    if type(loss).values is not Loss.values:
        return (own.weight * added(loss.values(own, projection))).sum()
    with torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu") and not loss.exact_products):
        scores = loss.scores(own.hidden, projection)
    with torch.autocast("cpu", enabled=False):
        return (own.weight * added(loss.from_logits(scores, own))).sum()


def gradients(total: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in wanted]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(a) if b is None else b for a, b in zip(wanted, found, strict=True)]


def assert_near(actual: Tensor, expected: Tensor, within: float = EXACT) -> None:
    assert (actual - expected).norm() <= within * expected.norm().clamp(min=1e-3)


@each_loss
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_chunks_equal_all_logits_at_once(loss: Loss, bias: bool, features: Features) -> None:
    wanted = leaves(loss, features, bias=bias)
    result, expected = run(loss, features, *wanted), run_dense(loss, features, *wanted)
    assert_near(result.total, expected)
    wanted += loss.parameters()
    for actual, reference in zip(gradients(result.total, wanted), gradients(expected, wanted), strict=True):
        assert_near(actual, reference)


@each_loss
def test_tied_weights_collect_both_of_their_gradients(loss: Loss, features: Features) -> None:
    def total(chunked: bool) -> Tensor:
        hidden = embedding[torch.arange(ROWS) % len(embedding)] * 0.5
        return run(loss, features, hidden, embedding).total if chunked else run_dense(loss, features, hidden, embedding)

    embedding = leaves(loss, features, bias=False)[1]
    assert_near(gradients(total(True), [embedding])[0], gradients(total(False), [embedding])[0])


@each_loss
def test_accumulated_pieces_equal_the_whole(loss: Loss, features: Features) -> None:
    hidden, weight = leaves(loss, features, bias=False)
    run(loss, features, hidden, weight).total.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert weight.grad is not None
    whole = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    for piece in (slice(0, 10), slice(10, ROWS)):
        part = replace(features[piece], hidden=hidden[piece])
        (3 * loss(part, OutputProjection(weight)).total).backward()
    assert_near(hidden.grad / 3, whole[0])
    assert_near(weight.grad / 3, whole[1])


@each_loss
def test_bf16_products_err_no_more_than_those_of_all_logits(loss: Loss, features: Features) -> None:
    """Against float32, within a rounding of each factor to bf16 of what autograd over all logits errs."""
    wanted = leaves(loss, features, bias=True)
    exact = run_dense(loss, features, *wanted)
    with torch.autocast("cpu", torch.bfloat16):
        result, dense = run(loss, features, *wanted), run_dense(loss, features, *wanted)
    assert result.total.dtype == torch.float32
    rounding = torch.finfo(torch.bfloat16).eps
    assert (result.total - exact).abs() <= (dense - exact).abs() + rounding * exact.abs()
    everything = zip(*(gradients(total, wanted) for total in (result.total, dense, exact)), strict=True)
    for actual, eager, reference in everything:
        assert (actual - reference).norm() <= (eager - reference).norm() + rounding * reference.norm()


@each_loss
def test_bf16_weights_get_float32_sums_and_bf16_gradients(loss: Loss, features: Features) -> None:
    """As under trainer.precision=bf16-true, which makes bfloat16 the default."""
    rounded = [leaf.detach().bfloat16() for leaf in leaves(loss, features, bias=True)]
    exact = [leaf.float().requires_grad_() for leaf in rounded]
    expected = run_dense(loss, features, *exact)
    torch.set_default_dtype(torch.bfloat16)
    try:
        own = [leaf.requires_grad_() for leaf in rounded]
        total = run(loss, features, *own).total
        found = gradients(total, own)
    finally:
        torch.set_default_dtype(torch.float32)
    assert total.dtype == torch.float32
    assert_near(total, expected, 0.02)
    for actual, reference in zip(found, gradients(expected, exact), strict=True):
        assert actual.dtype == torch.bfloat16
        assert_near(actual.float(), reference, 0.02)


@each_loss
def test_without_gradients_only_the_value_is_made(loss: Loss, features: Features) -> None:
    wanted = leaves(loss, features, bias=True)
    expected = run(loss, features, *wanted).total.detach()
    with torch.no_grad():
        total = run(loss, features, *wanted).total
    assert not total.requires_grad
    assert_near(total, expected)


def test_frozen_inputs_get_no_gradient(loss: Loss, features: Features) -> None:
    hidden, weight = leaves(loss, features, bias=False)
    run(loss, features, hidden.detach(), weight).total.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert hidden.grad is None


def test_a_second_backward_pass_is_refused_in_words(loss: Loss, features: Features) -> None:
    total = run(loss, features, *leaves(loss, features, bias=False)).total
    total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="gives its gradient once"):
        total.backward()  # type: ignore[no-untyped-call]


def test_chunks_are_what_a_loss_sees_unless_it_needs_the_whole_batch(features: Features) -> None:
    seen: list[int] = []

    class Counting(Loss):
        def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            seen.append(len(logits))
            return logits.sum(dim=-1)

    class Whole(Counting):
        position_wise = False

    for loss in (Counting(), Whole()):
        run(loss, features, *leaves(loss, features, bias=False))
    kept = int((features.weight != 0).sum())
    assert seen == [3, 3, 1] * (kept // 7) + [kept % 7] + [kept]


def test_rows_follow_from_the_budget() -> None:
    assert execution.projection_rows(262144, torch.device("cuda")) == 2**30 // (4 * 262144)
    assert execution.projection_rows(2, torch.device("cuda")) == 2048
    assert execution.projection_rows(10**9, torch.device("cpu")) == 1
    few, many = (execution.projection_rows(outputs, torch.device("cpu")) for outputs in (32768, 32769))
    assert (few, many) == (1, 2**25 // (4 * 32769)), "of many outputs another number of bytes"


def test_a_loss_that_says_nothing_is_refused_by_name(loss: Loss, features: Features) -> None:
    class Silent(Loss):
        pass

    with pytest.raises(UserError, match="Silent says nowhere what it computes"):
        run(Silent(), features, *leaves(loss, features, bias=False))


@each_case
def test_targets_of_another_kind_are_refused_in_a_sentence(case: Case, loss: Loss) -> None:
    loss = bound(case)
    features, projection = problem_for(case, 2)
    for target, said in wrong_targets(loss):
        wrong = replace(single(features), target=target, weight=torch.ones(2))
        with pytest.raises(UserError, match=said):
            loss(wrong, OutputProjection(projection.float()))


@each_case
def test_an_empty_batch_is_zero(case: Case) -> None:
    features, projection = problem_for(case, 2)
    weight = projection.float().requires_grad_()
    result = bound(case)(single(features)[:0], OutputProjection(weight))
    assert result.total.item() == result.weight.item() == 0
    assert torch.equal(torch.autograd.grad(result.total, weight)[0], torch.zeros_like(weight))


@pytest.mark.parametrize(
    "loss", [pytest.param(bound(case), id=str(case)) for case in CASES if case.loss.cost_class in ("F1", "F2", "F5")]
)
def test_logits_free_and_fused_paths_are_taken(loss: Loss, features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise of the cost class: no autograd over the logits."""
    monkeypatch.setitem(base._WAYS, "position_loss", None)
    run(loss, features, *leaves(loss, features, bias=True)).total.backward()  # type: ignore[no-untyped-call]


# How much exact entmax sorts depends on values, which meta tensors have not.
ON_META = [
    case
    for case in CASES
    if case.loss.target_kind is TargetKind.CLASSES
    and case.name != "adaptive_softmax"  # the meta device cannot pick the positions of a cluster
    and (case.name, case.variant == "bisected") != ("entmax", False)
]


@pytest.mark.parametrize("case", ON_META, ids=str)
def test_nothing_is_made_on_another_device(case: Case) -> None:
    """On the meta device, which refuses to meet the CPU as CUDA does."""
    loss = bound(case).to("meta")
    features, projection = problem_for(case, 4)
    if loss.reads_teacher:
        loss.teach(lambda hidden: torch.zeros(len(hidden), NUM_OUTPUTS, device="meta"))
    moved = Features(
        features.hidden.float().to("meta"),
        features.target.to("meta"),
        features.weight.float().to("meta"),
        {name: value.to("meta") for name, value in features.extras.items()},
    )
    values = loss.values(moved, OutputProjection(projection.float().to("meta")))
    assert added(values).device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_gradient_of_a_target_that_is_nearly_certain(dtype: torch.dtype) -> None:
    """p_y - 1 is a small difference of numbers near 1, of which half precision has few."""
    hidden = torch.tensor([[8.0, 0.5]], dtype=dtype).requires_grad_()
    weight = torch.tensor([[1.0, 0.25], [0.0, 1.0], [0.25, -1.0]], dtype=dtype)
    features = Features(hidden, torch.tensor([0]), torch.ones(1))
    (found,) = torch.autograd.grad(CrossEntropy()(features, OutputProjection(weight)).total, hidden)
    exact = hidden.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(exact @ weight.double().T, torch.tensor([0])), exact
    )
    assert expected.norm() < 0.01
    assert (found.double() - expected).norm() / expected.norm() < 4 * torch.finfo(dtype).eps
