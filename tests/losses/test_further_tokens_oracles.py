"""Losses of tokens after the next against loops over rows and positions in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from losslab.contracts import Batch, Features, LossSum, OutputSpec, TargetKind, Task, added, following_targets
from losslab.errors import UserError
from losslab.functional import LinearLoss
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.execution import LinearMap, limit_rows
from losslab.losses.multi_token_prediction import MultiTokenPrediction
from losslab.losses.regularizers import Regularized
from losslab.losses.token_order import TokenOrder, order_shares
from losslab.tasks.completion import Completion
from losslab.tasks.lm import LanguageModeling
from losslab.tasks.translation import Translation

B, T, V, D = 3, 9, 11, 6
TARGET = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(0))
WEIGHT = torch.ones(B, T)
WEIGHT[0, 3] = WEIGHT[1, 6:] = 0  # one in the middle, and a row that ends early
WEIGHT[2] = 0.5
SEGMENTS = torch.tensor([[0] * 9, [0] * 9, [0, 0, 0, 0, 1, 1, 1, 1, 1]])


def reachable(row: int, position: int, ahead: int) -> int | None:
    """The token so many positions after the position's own target; None where it is none of this text."""
    there = position + ahead
    if there >= T or not WEIGHT[row, there] or SEGMENTS[row, there] != SEGMENTS[row, position]:
        return None
    return int(TARGET[row, there])


@dataclass
class Setting:
    """A loss with parameters far from those that it begins with, and what it is given: float32 leaves."""

    loss: Loss
    hidden: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, loss: Loss) -> Setting:
        generator = torch.Generator().manual_seed(1)
        loss.bind(OutputSpec(V, D, torch.Generator().manual_seed(2)))
        with torch.no_grad():
            for parameter in loss.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        shapes = [(B, T, D), (V, D), (V,)]
        return cls(loss, *(torch.randn(shape, generator=generator).requires_grad_() for shape in shapes))

    @property
    def leaves(self) -> list[Tensor]:
        return [self.hidden, self.weight, self.bias, *self.loss.parameters()]

    @property
    def features(self) -> Features:
        extras = {}
        if count := self.loss.needs.get("next"):
            extras["next"] = following_targets(TARGET, WEIGHT, count, SEGMENTS).flatten(0, 1)
        return Features(self.hidden.flatten(0, 1), TARGET.flatten(), WEIGHT.flatten(), extras)

    def run(self, rows: slice = slice(None)) -> tuple[LossSum, list[Tensor]]:
        result = self.loss(self.features[rows], LinearMap(self.weight, self.bias))
        return result, [*torch.autograd.grad(result.total, self.leaves)]


def log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    logits = weight @ hidden + bias
    return logits - logits.exp().sum().log()


def heads(setting: Setting, leaves: list[Tensor]) -> dict[str, Tensor]:
    """Σ weight λ_i (−log p) of each head."""
    loss = setting.loss
    assert isinstance(loss, MultiTokenPrediction)
    hidden, weight, bias, *matrices = leaves
    inner, outer = matrices[: loss.heads - 1], matrices[loss.heads - 1 :]
    sums = {name: torch.zeros((), dtype=torch.float64) for name in loss.terms}
    for row in range(B):
        for position in range(T):
            for i in range(loss.heads):
                token, h = reachable(row, position, i), hidden[row, position]
                if not WEIGHT[row, position] or token is None:
                    continue
                if i:
                    x = inner[i - 1] @ h
                    h = h + outer[i - 1] @ (x * (1 + torch.erf(x / math.sqrt(2))) / 2)
                own = loss.weights[i] * WEIGHT[row, position] * log_softmax(h, weight, bias)[token]
                sums[f"head_{i + 1}"] = sums[f"head_{i + 1}"] - own
    return sums


def ranking(setting: Setting, leaves: list[Tensor]) -> dict[str, Tensor]:
    """Σ weight (−log p_y), and α times Σ weight of ListNet over the whole vocabulary."""
    loss = setting.loss
    assert isinstance(loss, TokenOrder)
    hidden, weight, bias, order = leaves
    reach = T if loss.window is None else loss.window
    sums = {name: torch.zeros((), dtype=torch.float64) for name in loss.terms}
    for row in range(B):
        for position in range(T):
            if not WEIGHT[row, position]:
                continue
            score = torch.full((V,), -math.inf, dtype=torch.float64)
            for distance in range(reach, 0, -1):
                token = reachable(row, position, distance - 1)
                if token is not None:
                    score[token] = reach - distance
            h = hidden[row, position]
            own = log_softmax(h, weight, bias)[int(TARGET[row, position])]
            ranked = (score.softmax(dim=0) * log_softmax(h, order)).sum()
            sums["next"] = sums["next"] - WEIGHT[row, position] * own
            sums["order"] = sums["order"] - loss.alpha * WEIGHT[row, position] * ranked
    return sums


CASES: list[tuple[Callable[[], Loss], Callable[[Setting, list[Tensor]], dict[str, Tensor]]]] = [
    (lambda: MultiTokenPrediction(), heads),
    (lambda: MultiTokenPrediction(heads=3, weights=[1.0, 0.5, 0.25]), heads),
    (lambda: MultiTokenPrediction(heads=14), heads),
    (lambda: TokenOrder(), ranking),
    (lambda: TokenOrder(window=3, alpha=0.5), ranking),
    (lambda: TokenOrder(window=1), ranking),
]
each_case = pytest.mark.parametrize(("make", "reference"), CASES)


def relative_error(found: list[Tensor], wanted: list[Tensor]) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(((a.double() - b).norm() / b.norm().clamp(min=1e-9)).item() for a, b in pairs)


@each_case
def test_sums_and_gradients_are_those_of_a_loop_in_float64(make, reference) -> None:
    setting = Setting.of(make())
    exact = [leaf.detach().double().requires_grad_() for leaf in setting.leaves]
    wanted = reference(setting, exact)
    total = torch.stack([*wanted.values()]).sum()
    # Heads beyond the longest text have no target anywhere.
    of_exact = torch.autograd.grad(total, exact, allow_unused=True)
    gradients = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(exact, of_exact, strict=True)]
    result, found = setting.run()
    assert result.total.item() == pytest.approx(total.item(), rel=1e-6)
    assert {name: pytest.approx(term.item(), rel=1e-5, abs=1e-6) for name, term in wanted.items()} == {
        name: term.item() for name, term in result.terms.items()
    }
    assert result.weight.item() == WEIGHT.sum()
    assert relative_error(found, gradients) < 2e-6
    kept, projection = setting.features.kept(), LinearMap(setting.weight, setting.bias)
    values = added(setting.loss.values(kept, projection))
    assert (kept.weight * values).sum().item() == pytest.approx(total.item(), rel=1e-6)


@each_case
def test_chunks_and_micro_batches_change_nothing(make, reference) -> None:
    setting = Setting.of(make())
    whole, gradients = setting.run()
    with limit_rows(4):
        chunked, found = setting.run()
    assert chunked.total.item() == pytest.approx(whole.total.item(), rel=1e-6)
    assert relative_error(found, gradients) < 1e-5
    parts = [setting.run(rows) for rows in (slice(0, 10), slice(10, None))]
    assert sum(part.total.item() for part, _ in parts) == pytest.approx(whole.total.item(), rel=1e-6)
    summed = [torch.stack(both).sum(dim=0) for both in zip(*(found for _, found in parts), strict=True)]
    assert relative_error(summed, gradients) < 1e-5


@each_case
def test_bf16_autocast_errs_by_its_rounding(make, reference) -> None:
    setting = Setting.of(make())
    exact, gradients = setting.run()
    with torch.autocast("cpu", torch.bfloat16):
        rounded, found = setting.run()
    assert rounded.total.dtype == torch.float32
    assert rounded.total.item() == pytest.approx(exact.total.item(), rel=1e-2)
    assert relative_error(found, gradients) < 3e-2


@pytest.mark.parametrize("loss", [MultiTokenPrediction(), TokenOrder()], ids=lambda loss: type(loss).__name__)
def test_an_evaluation_is_that_of_cross_entropy_bit_for_bit(loss: Loss) -> None:
    setting = Setting.of(loss)
    loss.eval()
    features, projection = setting.features, LinearMap(setting.weight, setting.bias)
    plain = CrossEntropy()
    assert torch.equal(loss(features, projection).total, plain(features, projection).total)
    scores = loss.scores(features.hidden, projection)
    assert torch.equal(loss.predict_log_probs(scores), plain.predict_log_probs(scores))
    kept = features.kept()
    scores = loss.scores(kept.hidden, projection)
    found, wanted = (each.from_scores(kept, projection, scores, scores.logsumexp(-1)) for each in (loss, plain))
    assert found is not None and wanted is not None and torch.equal(found.total, wanted.total)
    assert set(loss.from_log_prob(torch.zeros(1))) < set(loss.terms)


def test_one_head_is_cross_entropy_bit_for_bit() -> None:
    one, plain = Setting.of(MultiTokenPrediction(heads=1)), Setting.of(CrossEntropy())
    assert not one.loss.needs and not one.loss.state_dict()
    (result, found), (expected, gradients) = one.run(), plain.run()
    assert torch.equal(result.total, expected.total)
    assert all(torch.equal(a, b) for a, b in zip(found, gradients, strict=True))


def test_further_heads_begin_as_the_first() -> None:
    loss = MultiTokenPrediction()
    loss.bind(OutputSpec(V, D, torch.Generator().manual_seed(2)))
    hidden = torch.randn(5, D, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(loss._ahead(i, hidden), hidden) for i in (1, 2, 3))


@pytest.mark.parametrize(
    ("curriculum", "wanted"),
    [("none", [4] * 10), ("forward", [1, 1, 1, 2, 2, 3, 3, 3, 4, 4]), ("reverse", [4, 4, 4, 3, 3, 2, 2, 2, 1, 1])],
)
def test_a_curriculum_has_stages_of_equal_length(curriculum, wanted) -> None:
    setting = Setting.of(MultiTokenPrediction(curriculum=curriculum))
    loss = setting.loss
    assert isinstance(loss, MultiTokenPrediction)
    found = []
    for step in range(10):
        loss.begin_step(step, 10)
        result, gradients = setting.run()
        found.append(sum(term.item() > 0 for term in result.terms.values()))
        trained = [bool(g.any()) for g in gradients[3:6]]
        assert trained == [i < found[-1] for i in (1, 2, 3)]
    assert found == wanted
    whole = 3 * 6 * D * (V + 8 * D)
    assert loss.further_flops(V, D) == (whole if curriculum == "none" else whole // 2)


def test_shares_of_the_order_go_to_the_next_occurrence_alone() -> None:
    found = order_shares(torch.tensor([[3, 5, 3, -1, 0, 5], [2, 2, 2, 2, 2, 2]]))
    share = torch.tensor([1.0, math.exp(-1), 0, 0, math.exp(-4), 0])
    torch.testing.assert_close(found, torch.stack([share / share.sum(), torch.eye(6)[0]]))
    far = order_shares(torch.arange(200)[None])
    assert far[0, 104:].count_nonzero() == 0 and TokenOrder().needs == {"next": 103}


class Body(nn.Module):
    width = D

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.zeros(*inputs["tokens"].shape, D)


@pytest.mark.parametrize(
    "task", [LanguageModeling(), Completion(), Translation(beams=0)], ids=lambda t: type(t).__name__
)
@pytest.mark.parametrize("count", [3, 40])
def test_tasks_give_the_targets_that_follow_in_their_text(task: Task, count: int) -> None:
    packed = isinstance(task, LanguageModeling)
    inputs = {"tokens": TARGET} | ({"segments": SEGMENTS} if packed else {})
    features = task.features(Body(), Batch(inputs, TARGET, WEIGHT, {}), TargetKind.CLASSES, {"next": count})
    found = features.extras["next"].view(B, T, -1)
    assert found.dtype == torch.int32 and found.shape[-1] == min(count, T)
    for row in range(B if packed else B - 1):
        for position in range(T):
            after = [reachable(row, position, ahead) for ahead in range(1, found.shape[-1] + 1)]
            assert found[row, position].tolist() == [-1 if token is None else token for token in after]


def test_in_ones_own_loop_they_are_an_argument() -> None:
    head = LinearLoss(num_outputs=V, hidden_size=D, loss="multi_token", heads=2)
    hidden, weight = torch.randn(B, T, D), torch.randn(V, D)
    with pytest.raises(UserError, match=r"reads 'next'.*following_targets\(targets, targets != -100, 1\)"):
        head(hidden, weight, TARGET)
    following = following_targets(TARGET, torch.ones(B, T), 1)
    assert following[0, :, 0].tolist() == [*TARGET[0, 1:].tolist(), -1]
    assert head(hidden, weight, TARGET, extras={"next": following}).isfinite()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MultiTokenPrediction(heads=0), r"loss\.heads must be 1 or above, not 0"),
        (lambda: MultiTokenPrediction(weights=[1.0]), r"loss\.weights must be 4 finite numbers above 0.*\[1\.0\]"),
        (lambda: MultiTokenPrediction(heads=2, weights=[1.0, 0.0]), r"loss\.weights must be 2 finite numbers above 0"),
        (lambda: TokenOrder(alpha=-1.0), r"loss\.alpha must be 0 or above and finite, not -1.0"),
        (lambda: TokenOrder(window=0), r"loss\.window must be 1 or above, not 0"),
        (lambda: Regularized(MultiTokenPrediction(), z_loss=0.1), "regularizers join"),
        (lambda: Regularized(TokenOrder(), z_loss=0.1), "regularizers join"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make: Callable[[], Loss], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()
