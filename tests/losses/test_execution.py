"""Chunks, each with its gradient, against all logits at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import CASES, NUM_OUTPUTS, Case
from torch import Tensor, nn
from torch.nn import functional as F

from losslab.errors import UserError
from losslab.losses import base, execution
from losslab.losses.base import Loss
from losslab.models.projection import OutputProjection
from losslab.types import Features, LossSum, OutputSpec, Projection

WIDTH, ROWS = 5, 23
EXACT = 1e-6

each_case = pytest.mark.parametrize("case", CASES, ids=str)


class Focused(Loss):
    """Of log p_y alone, with a parameter."""

    def bind(self, spec: OutputSpec) -> None:
        self.gamma = nn.Parameter(torch.tensor(1.5))

    def from_log_prob(self, log_prob: Tensor) -> Tensor:
        return -((1 - log_prob.exp()) ** self.gamma) * log_prob


class PullNorm(Loss):
    """Of all logits, with a parameter, and of no softmax."""

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
    """Of more than logits and target."""

    def values(self, features: Features, projection: Projection) -> Tensor:
        return (projection(features.hidden).float() * features.extras["lean"][:, None]).square().sum(dim=-1)


class Constant(Loss):
    def position_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.ones(len(target))


OWN = [Focused, PullNorm, Distances, Leaning, Constant]


def bound(loss: Loss) -> Loss:
    loss.bind(OutputSpec(num_outputs=NUM_OUTPUTS, hidden_size=WIDTH, generator=torch.Generator().manual_seed(1)))
    return loss


def make_losses() -> Iterator[tuple[str, Loss]]:
    for case in CASES:
        yield str(case), bound(case.make())
    for kind in OWN:
        yield kind.__name__, bound(kind())


each_loss = pytest.mark.parametrize("loss", [pytest.param(loss, id=name) for name, loss in make_losses()])


@pytest.fixture(autouse=True)
def seven_rows_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(execution._BUDGET, "cpu", 7 * 4 * NUM_OUTPUTS)


@pytest.fixture
def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features(
        hidden=torch.randn(ROWS, WIDTH, generator=generator),
        target=torch.randint(NUM_OUTPUTS, (ROWS,), generator=generator),
        weight=torch.tensor([0.0, 0.5, 1.0, 1.0, 2.0, 0.0, 1.0, 1.0]).repeat(3)[:ROWS],
        extras={"lean": torch.rand(ROWS, generator=generator)},
    )


def leaves(features: Features, *, bias: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(NUM_OUTPUTS, WIDTH, generator=generator)
    own = [features.hidden.clone(), weight, torch.randn(NUM_OUTPUTS, generator=generator)]
    return [leaf.requires_grad_() for leaf in own[: 3 if bias else 2]]


def run(loss: Loss, features: Features, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> LossSum:
    result: LossSum = loss(
        Features(hidden, features.target, features.weight, features.extras), OutputProjection(weight, bias)
    )
    return result


def run_dense(loss: Loss, features: Features, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """All logits at once, by autograd."""
    own = Features(hidden, features.target, features.weight, features.extras)
    projection = OutputProjection(weight, bias)
    if type(loss).values is not Loss.values:
        return (features.weight * loss.values(own, projection)).sum()
    scores = (
        F.linear(hidden, weight, bias).float() if type(loss).scores is Loss.scores else loss.scores(hidden, projection)
    )
    with torch.autocast("cpu", enabled=False):
        return (features.weight * loss.position_loss(scores, features.target)).sum()


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
    wanted = leaves(features, bias=bias)
    result, expected = run(loss, features, *wanted), run_dense(loss, features, *wanted)
    assert_near(result.total, expected)
    wanted += loss.parameters()
    for actual, reference in zip(gradients(result.total, wanted), gradients(expected, wanted), strict=True):
        assert_near(actual, reference)


@each_loss
def test_tied_weights_collect_both_of_their_gradients(loss: Loss, features: Features) -> None:
    def total(chunked: bool) -> Tensor:
        hidden = embedding[features.target] * 0.5
        return run(loss, features, hidden, embedding).total if chunked else run_dense(loss, features, hidden, embedding)

    embedding = leaves(features, bias=False)[1]
    assert_near(gradients(total(True), [embedding])[0], gradients(total(False), [embedding])[0])


@each_loss
def test_accumulated_pieces_equal_the_whole(loss: Loss, features: Features) -> None:
    hidden, weight = leaves(features, bias=False)
    run(loss, features, hidden, weight).total.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert weight.grad is not None
    whole = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    for piece in (slice(0, 10), slice(10, ROWS)):
        part = Features(
            hidden[piece], features.target[piece], features.weight[piece], {"lean": features.extras["lean"][piece]}
        )
        (3 * loss(part, OutputProjection(weight)).total).backward()
    assert_near(hidden.grad / 3, whole[0])
    assert_near(weight.grad / 3, whole[1])


@each_loss
def test_bf16_products_err_no_more_than_those_of_all_logits(loss: Loss, features: Features) -> None:
    """Against float32, within one rounding to bf16 of what autograd over all logits errs."""
    wanted = leaves(features, bias=True)
    exact = run_dense(loss, features, *wanted)
    with torch.autocast("cpu", torch.bfloat16):
        result, dense = run(loss, features, *wanted), run_dense(loss, features, *wanted)
    assert result.total.dtype == torch.float32
    rounding = torch.finfo(torch.bfloat16).eps / 2
    assert (result.total - exact).abs() <= (dense - exact).abs() + rounding * exact.abs()
    everything = zip(*(gradients(total, wanted) for total in (result.total, dense, exact)), strict=True)
    for actual, eager, reference in everything:
        assert (actual - reference).norm() <= (eager - reference).norm() + rounding * reference.norm()


@each_loss
def test_bf16_weights_get_float32_sums_and_bf16_gradients(loss: Loss, features: Features) -> None:
    """As under trainer.precision=bf16-true, which makes bfloat16 the default."""
    rounded = [leaf.detach().bfloat16() for leaf in leaves(features, bias=True)]
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
    wanted = leaves(features, bias=True)
    expected = run(loss, features, *wanted).total.detach()
    with torch.no_grad():
        total = run(loss, features, *wanted).total
    assert not total.requires_grad
    assert_near(total, expected)


def test_frozen_inputs_get_no_gradient(features: Features) -> None:
    loss, (hidden, weight) = bound(Focused()), leaves(features, bias=False)
    run(loss, features, hidden.detach(), weight).total.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert hidden.grad is None


def test_a_second_backward_pass_is_refused_in_words(features: Features) -> None:
    total = run(bound(Focused()), features, *leaves(features, bias=False)).total
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
        run(loss, features, *leaves(features, bias=False))
    assert seen == [7, 7, 3, 17]


def test_rows_follow_from_the_budget() -> None:
    assert execution.chunk_rows(50304, torch.device("cuda")) == 2**28 // (4 * 50304)
    assert execution.chunk_rows(2, torch.device("cuda")) == 2048
    assert execution.chunk_rows(10**9, torch.device("cpu")) == 1


def test_a_loss_that_says_nothing_is_refused_by_name(features: Features) -> None:
    class Silent(Loss):
        pass

    with pytest.raises(UserError, match="Silent says nowhere what it computes"):
        run(Silent(), features, *leaves(features, bias=False))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.tensor([0, NUM_OUTPUTS]), f"target {NUM_OUTPUTS} is no class: there are {NUM_OUTPUTS}, from 0 to"),
        (torch.tensor([-100, 1]), "target -100 is no class.*weight 0"),
        (torch.tensor([0.0, 1.0]), "int64.*float32"),
        (torch.zeros(2, NUM_OUTPUTS), r"int64.*shape \[2, 7\]"),
    ],
)
@each_case
def test_what_is_no_class_is_refused_in_a_sentence(case: Case, target: Tensor, said: str) -> None:
    features = Features(torch.ones(2, WIDTH), target, torch.ones(2))
    with pytest.raises(UserError, match=said):
        bound(case.make())(features, OutputProjection(torch.ones(NUM_OUTPUTS, WIDTH)))


@each_case
def test_an_empty_batch_is_zero(case: Case) -> None:
    features = Features(torch.ones(0, WIDTH), torch.zeros(0, dtype=torch.int64), torch.ones(0))
    weight = torch.ones(NUM_OUTPUTS, WIDTH).requires_grad_()
    result = bound(case.make())(features, OutputProjection(weight))
    assert result.total.item() == result.weight.item() == 0
    assert torch.equal(torch.autograd.grad(result.total, weight)[0], torch.zeros_like(weight))


@pytest.mark.parametrize("case", [case for case in CASES if case.loss.cost_class in ("F1", "F2", "F5")], ids=str)
def test_logits_free_and_fused_paths_are_taken(case: Case, features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cost class promises: no autograd over the logits."""
    monkeypatch.setitem(base._WAYS, "position_loss", None)
    run(bound(case.make()), features, *leaves(features, bias=True)).total.backward()  # type: ignore[no-untyped-call]
