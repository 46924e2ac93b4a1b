"""The LightningModule under a real Trainer: what a step computes, reports, clips and refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny_network import CONTEXT, LOSSES, WINDOWS, make_batch, make_network, relative_error, split, token_mean_gradient
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

import losslab.training.module
from losslab.contracts import Batch
from losslab.errors import Diverged
from losslab.training.module import LossModule
from losslab.training.network import Network
from losslab.training.reduce import StepReducer

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning's own use of torch


def train(
    network: Network,
    micro_batches: list[Batch],
    *,
    steps: int = 1,
    clip: float | None = None,
    seed: int = 0,
    is_logged: Callable[[int], bool] = lambda step: True,
    stop: bool = False,
) -> LossModule:
    """Plain gradient descent at learning rate 1, then half of it: a step moves the weights by the gradient."""
    accumulate = len(micro_batches) // steps
    module = LossModule(
        network=network,
        make_optimizer=lambda net: torch.optim.SGD(net.parameters(), lr=1.0),
        make_scheduler=lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
        dropout_seed=seed,
        loss_seed=seed,
        reducer=StepReducer(nominal_weight=len(micro_batches[0].target) * CONTEXT, accumulate=accumulate, ranks=1),
        gradient_clip_val=clip,
        is_logged=is_logged,
        stop_requested=lambda: stop,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(micro_batches, batch_size=None))  # type: ignore[arg-type]
    assert trainer.global_step == steps
    return module


def weights(network: Network) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).double()


def moved(network: Network, micro_batches: list[Batch], **options: Any) -> tuple[Tensor, LossModule]:
    before = weights(network)
    module = train(network, micro_batches, **options)
    return before - weights(network), module


def test_a_step_begins_without_the_gradients_of_the_last_one() -> None:
    network, found = make_network("cross_entropy"), []
    network.register_forward_pre_hook(lambda *_: found.append(any(p.grad is not None for p in network.parameters())))
    train(network, split(make_batch(), 2), steps=2)
    assert found == [False, True, False, True]


def test_what_the_first_step_makes_to_stay_lies_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    network, found = make_network("cross_entropy"), []
    start = weights(network)

    def note(wanted: bool) -> None:
        found.append((wanted, bool((weights(network) != start).any())))

    monkeypatch.setattr(losslab.training.module, "lay_apart", note)
    train(network, split(make_batch(), 2), steps=2)
    assert found == [(True, False), (False, True)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [8, 2])
def test_a_step_follows_the_token_mean_however_it_is_cut(loss: str, size: int) -> None:
    batch = make_batch()
    network = make_network(loss)
    expected = token_mean_gradient(network, batch)
    network.zero_grad()
    whole = network(batch)
    step, module = moved(network, split(batch, size))
    assert relative_error(step, expected) < 1e-6
    assert module.reports[-1].objective == pytest.approx((whole.total / whole.weight).item(), rel=1e-6)
    assert module.reports[-1].weight == pytest.approx(whole.weight.item(), rel=1e-6)
    assert module.reports[-1].gradient_norms["all"] == pytest.approx(expected.norm().item(), rel=1e-6)
    assert not module.reports[-1].stop


def test_reported_norms_do_not_depend_on_the_micro_batch_size() -> None:
    reports = [train(make_network(), split(make_batch(), size)).reports[-1] for size in (8, 2, 1)]
    for report in reports:
        assert set(report.gradient_norms) == {"all", "hidden_01", "hidden_02", "hidden_last"}
        assert report.gradient_norms == pytest.approx(reports[0].gradient_norms, rel=1e-5)


def test_norms_at_hidden_states_are_only_measured_on_logged_steps() -> None:
    def measured(*, steps: int) -> set[str]:
        module = train(make_network(), split(make_batch(), 2)[: 2 * steps], steps=steps, is_logged=lambda s: s == 2)
        return set(module.reports[-1].gradient_norms)

    assert measured(steps=1) == {"all"}
    assert "hidden_01" in measured(steps=2)


def test_clipping_shortens_the_step_and_not_the_reported_norm() -> None:
    expected = token_mean_gradient(make_network(), make_batch())
    network = make_network()
    step, module = moved(network, split(make_batch(), 2), clip=0.01)
    assert step.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(step, expected, dim=0).item() == pytest.approx(1.0, abs=1e-6)
    assert module.reports[-1].gradient_norms["all"] == pytest.approx(expected.norm().item(), rel=1e-6)


def test_a_gradient_below_the_clip_is_left_alone() -> None:
    batches = split(make_batch(), 2)
    unclipped, _ = moved(make_network(), batches)
    clipped, _ = moved(make_network(), batches, clip=1e6)
    assert torch.equal(clipped, unclipped)


def test_an_all_ignored_step_moves_nothing() -> None:
    step, module = moved(make_network(), split(make_batch(all_ignored=True), 2), clip=1.0)
    assert torch.equal(step, torch.zeros_like(step))
    assert module.reports[-1].objective == module.reports[-1].gradient_norms["all"] == 0


def test_the_schedule_counts_optimizer_steps_and_its_rate_is_reported() -> None:
    micro_batches = split(make_batch(), 1)
    for steps, rate in ((1, 1.0), (2, 0.5), (4, 0.125)):
        module = train(make_network(), micro_batches, steps=steps)
        assert module.reports[-1].learning_rates == {"": rate}


def test_dropout_follows_the_seed_and_no_other_random_number() -> None:
    def step(*, seed: int, default_seed: int) -> Tensor:
        network = make_network(dropout=0.3)
        torch.manual_seed(default_seed)
        return moved(network, split(make_batch(), 2), seed=seed)[0]

    first = step(seed=0, default_seed=1)
    assert torch.equal(step(seed=0, default_seed=2), first)
    assert not torch.equal(step(seed=3, default_seed=1), first)


def test_each_micro_batch_of_each_step_has_a_dropout_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[tuple[int, dict[str, int]]] = []
    monkeypatch.setattr(losslab.training.module, "seed_dropout", lambda seed, **place: seeded.append((seed, place)))
    train(make_network(), split(make_batch(), 2), steps=2, seed=5)
    assert seeded == [(5, {"step": step, "micro": micro, "rank": 0}) for step in (0, 1) for micro in (0, 1)]


@pytest.mark.parametrize("position", [0, WINDOWS - 1])
def test_a_loss_that_is_not_finite_ends_the_run_before_the_step(position: int) -> None:
    network, batch = make_network(), make_batch()
    batch.weight[position, 0] = torch.inf
    before = weights(network)
    with pytest.raises(Diverged, match="at step 1"):
        train(network, split(batch, 2))
    assert torch.equal(weights(network), before)


def test_a_gradient_that_is_not_finite_ends_the_run_before_the_step() -> None:
    network = make_network()
    network.backbone.last_norm.register_forward_hook(
        lambda *_: _[2].register_hook(lambda gradient: gradient * torch.nan) and None
    )
    before = weights(network)
    with pytest.raises(Diverged, match="norm nan at step 1"):
        train(network, split(make_batch(), 2))
    assert torch.equal(weights(network), before)


def test_a_requested_stop_is_reported() -> None:
    report = train(make_network(), split(make_batch(), 2), stop=True).reports[-1]
    assert report.stop


def test_a_checkpoint_continues_at_the_boundary_of_its_step_under_another_split() -> None:
    """Five steps done, and now four micro-batches a step: twenty of them lie behind."""
    module = train(make_network(), split(make_batch(), 2))
    stale = {"ready": 7, "started": 7, "processed": 6, "completed": 6}
    progress = {"total": dict(stale), "current": dict(stale), "is_last_batch": False}
    loop: dict[str, Any] = {
        "epoch_loop.batch_progress": progress,
        "epoch_loop.state_dict": {"_batches_that_stepped": 0},
    }
    module.on_load_checkpoint({"losslab": {"step": 5}, "loops": {"fit_loop": loop}})
    counts = {"ready": 20, "started": 20, "processed": 20, "completed": 20}
    assert loop["epoch_loop.batch_progress"] == {"total": counts, "current": counts, "is_last_batch": False}
    assert loop["epoch_loop.state_dict"] == {"_batches_that_stepped": 5}
