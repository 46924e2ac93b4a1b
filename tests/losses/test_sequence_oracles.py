"""Losses of sequences: against the sum over all paths, torch's own, and what every loss promises of its sums."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from cases import SEQUENCE_CASES, Case
from torch import Tensor
from torch.nn import functional as F

from losslab.conformance.subject import Problem, near, single
from losslab.contracts import Features
from losslab.errors import UserError
from losslab.functional import linear_loss
from losslab.losses.ctc import BLANK, CTC, needed_positions
from losslab.losses.execution import LinearMap, limit_rows
from losslab.losses.regularizers import Regularized
from losslab.losses.sum import Sum
from losslab.training.two_passes import check_r_drop

each_case = pytest.mark.parametrize("case", SEQUENCE_CASES, ids=str)


def made(lengths: list[int], targets: list[list[int]], outputs: int, seed: int = 0) -> tuple[Tensor, Features]:
    """Logits float64 [N, outputs], a leaf, and features whose hidden states are the logits."""
    logits = torch.randn(sum(lengths), outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows = [torch.tensor(target, dtype=torch.int64) for target in targets]
    target = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    features = Features(logits, target, torch.ones(len(targets)), lengths=torch.tensor(lengths))
    return logits.requires_grad_(), features


def likelihood_by_all_paths(logits: Tensor, target: list[int]) -> Tensor:
    """Σ over every path that becomes the target when repeats are merged and blanks dropped."""
    p, total = logits.softmax(dim=-1), logits.new_zeros(())
    for path in product(range(logits.shape[1]), repeat=len(logits)):
        merged = [k for t, k in enumerate(path) if t == 0 or k != path[t - 1]]
        if [k - 1 for k in merged if k != BLANK] == target:
            total = total + torch.stack([p[t, k] for t, k in enumerate(path)]).prod()
    return total


@pytest.mark.parametrize("target", [[0], [0, 1], [1, 1], [0, 1, 0], []])
def test_ctc_is_the_sum_over_all_paths(target: list[int]) -> None:
    logits, features = made([4], [target], 3)
    expected = -likelihood_by_all_paths(logits, target).log()
    value = CTC().from_logits(logits, features)[0]
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    mine, theirs = (torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (value, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@each_case
def test_values_gradients_and_sums_equal_the_reference(case: Case) -> None:
    problem = Problem.random(case.make(), positions=60)
    hidden = problem.features.hidden.requires_grad_()
    projection = problem.projection.requires_grad_()
    features = replace(problem.features, hidden=hidden)
    scores = hidden @ projection.T
    expected = case.values(scores, features)
    torch.testing.assert_close(case.make().from_logits(scores, features), expected, rtol=1e-12, atol=1e-12)
    result = case.make()(single(features), LinearMap(projection.float(), None))
    total = (features.weight * expected).sum()
    assert result.total.item() == pytest.approx(total.item(), rel=2e-6)
    counts = (features.target >= 0).sum(dim=-1)
    assert result.weight.item() == float((features.weight * counts).sum())
    both = [torch.autograd.grad(each, [hidden, projection]) for each in (result.total, total)]
    for mine, theirs in zip(*both, strict=True):
        assert near(mine.double(), theirs)


def test_ctc_equals_torch_on_random_cases() -> None:
    draws = torch.Generator().manual_seed(3)
    for seed in range(20):
        outputs, count = 2 + seed % 5, 1 + seed % 4
        sizes = torch.randint(0, 5, (count,), generator=draws).tolist()
        targets = [torch.randint(outputs - 1, (size,), generator=draws).tolist() for size in sizes]
        lengths = [2 * size + 1 + int(torch.randint(4, (1,), generator=draws)) for size in sizes]
        logits, features = made(lengths, targets, outputs, seed)
        side_by_side = torch.nn.utils.rnn.pad_sequence(logits.log_softmax(dim=-1).split(lengths))
        joined = torch.tensor([c + 1 for target in targets for c in target], dtype=torch.int64)
        theirs = F.ctc_loss(side_by_side, joined, torch.tensor(lengths), torch.tensor(sizes), reduction="sum")
        mine = CTC().from_logits(logits, features).sum()
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        pair = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (mine, theirs)]
        torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)


@each_case
def test_each_check_of_the_kit_passes(case: Case) -> None:
    from losslab.conformance import check

    check(case.make())


@each_case
def test_chunks_are_whole_sequences_in_their_order(case: Case) -> None:
    seen: list[tuple[int, list[int]]] = []

    class Watched(CTC):
        def from_logits(self, logits: Tensor, features: Features) -> Tensor:
            assert features.lengths is not None
            seen.append((len(logits), features.lengths.tolist()))
            return super().from_logits(logits, features)

    problem = Problem.random(Watched(), positions=24)  # 4, 3, 6, 1, 5, 4, 1; the first and sixth have weight 0
    with limit_rows(9):
        Watched()(single(problem.features), LinearMap(problem.projection.float(), None))
    assert seen == [(9, [3, 6]), (7, [1, 5, 1])]
    with limit_rows(2):
        Watched()(single(problem.features), LinearMap(problem.projection.float(), None))
    assert [lengths for _, lengths in seen[2:]] == [[3], [6], [1], [5], [1]]


def test_features_of_sequences_are_selected_with_their_hidden_states() -> None:
    hidden = torch.arange(6.0)[:, None]
    whole = Features(
        hidden, torch.tensor([[0], [1], [2]]), torch.tensor([1.0, 0.0, 2.0]), lengths=torch.tensor([2, 1, 3])
    )
    assert whole[torch.tensor([2, 0])].hidden[:, 0].tolist() == [3, 4, 5, 0, 1]
    assert whole.kept().hidden[:, 0].tolist() == [0, 1, 3, 4, 5] and whole.kept().weight.tolist() == [1, 2]
    assert [len(part) for part in whole.chunks(3)] == [2, 1] and len(whole) == 3
    assert whole[:0].chunks(3) == [] and len(whole[:0].hidden) == 0


@pytest.mark.parametrize(
    ("length", "target", "needed"), [(1, [0, 1], 2), (2, [1, 1], 3), (4, [0, 0, 0], 5), (3, [2, 1, 1], 4)]
)
def test_a_sequence_without_a_path_is_refused(length: int, target: list[int], needed: int) -> None:
    logits, features = made([5, length], [[0], target], 4)
    assert needed_positions(features.target).tolist() == [1, needed]
    with pytest.raises(UserError, match=rf"1 of 2 sequences are too short .* {length} positions and needs {needed}"):
        CTC().from_logits(logits, features)
    ignored = replace(single(features), weight=torch.tensor([1.0, 0.0]))
    assert CTC()(ignored, LinearMap(torch.eye(4), None)).total.isfinite()


def test_the_best_path_loses_repeats_and_blanks() -> None:
    path = [0, 3, 3, 0, 3, 1, 1, 2, 0, 0, 0, 2]
    decoded = CTC().decode(F.one_hot(torch.tensor(path), 4).float(), torch.tensor([9, 2, 1]))
    assert [each.tolist() for each in decoded] == [[2, 2, 0, 1], [], [1]]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.zeros(2), r"int64 \[S, U\].*float32 of shape \[2\]"),
        (torch.tensor([[0], [11]]), "target 11 is no class: there are 11, from 0 to 10"),
        (torch.tensor([[-1, 0], [0, 0]]), "from its beginning on"),
        (torch.tensor([[0, -2], [0, 0]]), "from its beginning on"),
    ],
)
def test_other_targets_are_refused(target: Tensor, said: str) -> None:
    problem = Problem.random(CTC(), positions=12)
    features = replace(single(problem.features)[1:3], target=target, weight=torch.ones(2))
    with pytest.raises(UserError, match=said):
        CTC()(features, LinearMap(problem.projection.float(), None))


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: Regularized(CTC(), z_loss=1e-4), "loss=ctc is none"),
        (lambda: Sum(first=CTC(), second=CTC()), "has outputs of its own"),
        (lambda: check_r_drop(CTC()), "loss=ctc predicts sequences"),
        (
            lambda: linear_loss(torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(2, dtype=torch.int64), loss="ctc"),
            r"reads whole sequences.*lengths=…",
        ),
    ],
)
def test_what_needs_one_prediction_a_position_refuses_it(refused: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        refused()
