"""However a step's batch is cut into micro-batches and ranks, its gradient is that of Σ total / Σ weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_network import (
    CONTEXT,
    LOSSES,
    WINDOWS,
    flat_gradient,
    make_batch,
    make_network,
    relative_error,
    split,
    token_mean_gradient,
)
from torch import Tensor

from losslab.contracts import Batch, LossSum
from losslab.training.network import Network
from losslab.training.reduce import StepReducer, WindowSums
from runs import only_run

each_loss = pytest.mark.parametrize("loss", LOSSES)


def reducer_of(size: int, accumulate: int, ranks: int = 1) -> StepReducer:
    return StepReducer(nominal_weight=size * CONTEXT, accumulate=accumulate, ranks=ranks)


def accumulate(network: Network, reducer: StepReducer, micro_batches: list[Batch]) -> None:
    """As Lightning: each micro-batch's loss is divided by the length of a full window."""
    network.zero_grad()
    for batch in micro_batches:
        (reducer.add(network(batch)) / reducer.accumulate).backward()


def step(network: Network, reducer: StepReducer, micro_batches: list[Batch]) -> tuple[Tensor, WindowSums]:
    accumulate(network, reducer, micro_batches)
    sums = reducer.finish()
    sums.rescale(network.parameters())
    return flat_gradient(network), sums


@each_loss
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [8, 4, 2, 1])
def test_gradient_does_not_depend_on_the_micro_batch_size(loss: str, tied: bool, size: int) -> None:
    network, batch = make_network(loss, tie_embeddings=tied), make_batch()
    expected = token_mean_gradient(network, batch)
    gradient, sums = step(network, reducer_of(size, WINDOWS // size), split(batch, size))
    assert relative_error(gradient, expected) < 1e-6
    whole = network(batch)
    assert sums.objective == pytest.approx((whole.total / whole.weight).item(), rel=1e-6)
    assert sums.weight == pytest.approx(whole.weight.item(), rel=1e-6)


@each_loss
def test_a_mean_of_means_would_be_wrong_by_much_more(loss: str) -> None:
    """So the batches of these tests are ragged enough to tell the two apart."""
    network, batch = make_network(loss), make_batch()
    mean_of_means = torch.stack([token_mean_gradient(network, micro) for micro in split(batch, 2)]).mean(dim=0)
    assert relative_error(mean_of_means, token_mean_gradient(network, batch)) > 1e-2


@each_loss
def test_a_window_of_one_of_four_has_the_gradient_of_its_own_mean(loss: str) -> None:
    network, batch = make_network(loss), split(make_batch(), 2)[0]
    expected = token_mean_gradient(network, batch)
    gradient, _ = step(network, reducer_of(2, accumulate=4), [batch])
    assert relative_error(gradient, expected) < 1e-6


@each_loss
def test_an_ignored_micro_batch_in_a_window_changes_nothing(loss: str) -> None:
    network, batch = make_network(loss), make_batch(windows=2)
    expected = token_mean_gradient(network, batch)
    gradient, sums = step(network, reducer_of(2, accumulate=2), [make_batch(windows=2, all_ignored=True), batch])
    assert relative_error(gradient, expected) < 1e-6
    assert sums.weight == pytest.approx(network(batch).weight.item())


@each_loss
def test_an_all_ignored_window_has_a_gradient_of_exactly_zero(loss: str) -> None:
    network = make_network(loss)
    gradient, sums = step(network, reducer_of(2, accumulate=4), split(make_batch(all_ignored=True), 2))
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert (sums.total, sums.weight, sums.objective, sums.factor) == (0, 0, 0, 0)


def test_an_empty_window_clears_even_gradients_that_are_not_finite() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([torch.nan, torch.inf])
    without_gradient = torch.nn.Parameter(torch.zeros(2))
    WindowSums(total=0.0, weight=0.0, factor=0.0, flag=False).rescale([parameter, without_gradient])
    assert torch.equal(parameter.grad, torch.zeros(2))
    assert without_gradient.grad is None


def test_a_window_forgets_the_one_before() -> None:
    network, reducer = make_network(), reducer_of(2, accumulate=4)
    first, second = split(make_batch(), 2), split(make_batch(seed=9), 2)
    step(network, reducer, first)
    after, sums = step(network, reducer, second)
    alone, sums_alone = step(network, reducer_of(2, accumulate=4), second)
    assert torch.equal(after, alone)
    assert sums.objective == sums_alone.objective


def test_what_is_handed_to_backward_is_near_one_for_a_full_micro_batch_of_loss_one() -> None:
    result = LossSum(total=torch.tensor(12.0, requires_grad=True), weight=torch.tensor(12.0))
    assert StepReducer(nominal_weight=12.0, accumulate=4, ranks=2).add(result).item() == 1


@pytest.mark.parametrize("constant", [1.0, 48.0, 1000.0])
def test_the_nominal_weight_cancels(constant: float) -> None:
    network, batch = make_network(), make_batch()
    expected = token_mean_gradient(network, batch)
    reducer = StepReducer(nominal_weight=constant, accumulate=4, ranks=1)
    assert relative_error(step(network, reducer, split(batch, 2))[0], expected) < 1e-6


class Ranks:
    """Stands in for all_reduce: every rank's sums, noted in a first round and handed out in a second."""

    def __init__(self) -> None:
        self.noted: list[Tensor] = []
        self.calls = 0

    def note(self, sums: Tensor) -> None:
        self.calls += 1
        self.noted.append(sums.clone())

    def add_up(self, sums: Tensor) -> None:
        sums.copy_(torch.stack(self.noted).sum(dim=0))


def two_ranks(
    monkeypatch: pytest.MonkeyPatch, network: Network, shares: list[list[Batch]], flags: list[bool]
) -> tuple[Tensor, WindowSums]:
    """The gradient after DDP's average of both ranks' accumulated ones, rescaled."""
    ranks, gradients = Ranks(), []
    monkeypatch.setattr(torch.distributed, "all_reduce", ranks.note)
    for share, flag in zip(shares, flags, strict=True):
        reducer = reducer_of(2, len(share), ranks=2)
        accumulate(network, reducer, share)
        gradients.append(flat_gradient(network))
        reducer.finish(flag)
    assert ranks.calls == 2  # one exchange a rank and step
    monkeypatch.setattr(torch.distributed, "all_reduce", ranks.add_up)
    reducer = reducer_of(2, len(shares[0]), ranks=2)
    for share in shares[0]:
        reducer.add(network(share))
    sums = reducer.finish(flags[0])
    return torch.stack(gradients).mean(dim=0) * sums.factor, sums


@each_loss
def test_two_ranks_with_unequal_weights_equal_one(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = make_network(loss), make_batch()
    expected = token_mean_gradient(network, batch)
    first, second, *rest = split(batch, 2)
    gradient, sums = two_ranks(monkeypatch, network, [[first, second], rest], flags=[False, False])
    assert relative_error(gradient, expected) < 1e-6
    assert sums.weight == pytest.approx(network(batch).weight.item(), rel=1e-6)
    assert not sums.flag


@pytest.mark.parametrize("flags", [[False, True], [True, False], [True, True]])
def test_a_flag_of_any_rank_reaches_all(flags: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *rest = split(make_batch(), 2)
    assert two_ranks(monkeypatch, make_network(), [[first, second], rest], flags)[1].flag


def test_a_flag_lasts_one_window() -> None:
    network, reducer = make_network(), reducer_of(8, accumulate=1)
    for flag in (True, False):
        accumulate(network, reducer, [make_batch()])
        assert reducer.finish(flag).flag == flag


def test_class_weights_and_a_penalty_train_alike_however_the_batch_is_split(run_tiny: Callable[..., int]) -> None:
    """Their two denominators are those of the whole optimizer step."""
    weights = ",".join(str(0.25 + i % 7) for i in range(257))
    options = [f"loss.class_weights=[{weights}]", "regularizers.z_loss=0.05", "optimizer.lr=0.01"]
    for parts in (1, 4):
        assert run_tiny(*options, f"name=n{parts}", f"trainer.accumulate_grad_batches={parts}") == 0
    (_, one), (_, four) = (only_run(Path(f"outputs/n{parts}")) for parts in (1, 4))
    assert one.identity == four.identity
    assert four.metrics["final"] == pytest.approx(one.metrics["final"], rel=1e-5)
