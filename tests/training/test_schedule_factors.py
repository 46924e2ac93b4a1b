"""Schedules by hand, and the learning rates that a run gets from them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from losslab.config.trust import allowed
from losslab.errors import UserError
from losslab.training.schedules import Constant, Cosine, WarmupStableDecay, make_scheduler


def learning_rates(schedule: Callable[[int], float], steps: int, peak: float) -> list[float]:
    """Learning rates of each optimizer step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler, rates = LambdaLR(optimizer, schedule), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_constant_warms_up_and_stays() -> None:
    schedule = Constant(warmup_steps=4, max_steps=8)
    assert [schedule(step) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert [Constant(max_steps=3)(step) for step in range(3)] == [1, 1, 1]


def test_cosine_by_hand() -> None:
    """Two steps of warm-up, then the cosine over steps 2 … 6: its quarters are at 0, 1/4, 1/2, 3/4 and 1."""
    schedule = Cosine(warmup_steps=2, final_fraction=0.2, max_steps=7)
    root = 2**-0.5
    expected = [0.5, 1, 1, 0.2 + 0.4 * (1 + root), 0.6, 0.2 + 0.4 * (1 - root), 0.2]
    assert [schedule(step) for step in range(7)] == pytest.approx(expected, rel=1e-12)


def test_cosine_stays_at_its_final_fraction_beyond_the_budget() -> None:
    schedule = Cosine(final_fraction=0.2, max_steps=7)
    assert [schedule(step) for step in (6, 7, 100)] == pytest.approx([0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [1 - 0.8 / 4, 1 - 0.8 / 2, 1 - 0.8 * 3 / 4, 0.2]),
        ("sqrt", [1 - 0.8 / 2, 1 - 0.8 * 2**-0.5, 1 - 0.8 * 3**0.5 / 2, 0.2]),
    ],
)
def test_warmup_stable_decay_by_hand(decay: Any, expected: list[float]) -> None:
    """Two steps of warm-up, and a decay of 40% of 10 steps."""
    schedule = WarmupStableDecay(warmup_steps=2, decay_fraction=0.4, decay=decay, final_fraction=0.2, max_steps=10)
    assert schedule.stable_steps == 6
    assert [schedule(step) for step in range(6)] == [0.5, 1, 1, 1, 1, 1]
    assert [schedule(step) for step in range(6, 10)] == pytest.approx(expected, rel=1e-12)
    assert schedule(10) == schedule(100) == pytest.approx(0.2)


@pytest.mark.parametrize("budgets", [(60, 120), (7, 8), (100, 1000)])
def test_before_its_decay_a_schedule_is_that_of_every_longer_budget(budgets: tuple[int, int]) -> None:
    shorter, longer = (WarmupStableDecay(warmup_steps=3, max_steps=steps) for steps in budgets)
    assert 0 < shorter.stable_steps < budgets[0]
    assert [shorter(step) for step in range(shorter.stable_steps)] == [
        longer(step) for step in range(shorter.stable_steps)
    ]
    assert shorter(shorter.stable_steps) != longer(shorter.stable_steps)


@pytest.mark.parametrize("final_fraction", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("warmup_steps", [0, 1, 10, 48])
def test_learning_rates_never_rise_after_the_warmup_and_end_at_the_final_fraction(
    final_fraction: float, warmup_steps: int
) -> None:
    schedule = Cosine(warmup_steps=warmup_steps, final_fraction=final_fraction, max_steps=50)
    rates = learning_rates(schedule, steps=50, peak=3e-3)
    assert rates[-1] == pytest.approx(3e-3 * final_fraction, abs=1e-18)
    assert max(rates) == pytest.approx(3e-3)
    after = rates[warmup_steps:]
    assert after == sorted(after, reverse=True)
    assert rates[:warmup_steps] == pytest.approx([3e-3 * (step + 1) / warmup_steps for step in range(warmup_steps)])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Constant(warmup_steps=-1, max_steps=5), "warmup_steps"),
        (lambda: Cosine(warmup_steps=-1, max_steps=5), "warmup_steps"),
        (lambda: WarmupStableDecay(warmup_steps=-1, max_steps=5), "warmup_steps"),
        (lambda: WarmupStableDecay(decay_fraction=0.0, max_steps=5), "decay_fraction"),
        (lambda: WarmupStableDecay(decay_fraction=1.1, max_steps=5), "decay_fraction"),
        (lambda: WarmupStableDecay(final_fraction=-0.1, max_steps=5), "final_fraction"),
        (lambda: WarmupStableDecay(warmup_steps=5, max_steps=5), "exceed the budget of 5"),
        (lambda: Cosine(final_fraction=-0.1, max_steps=5), "final_fraction"),
        (lambda: Cosine(final_fraction=1.1, max_steps=5), "final_fraction"),
        (lambda: Cosine(final_fraction=float("nan"), max_steps=5), "final_fraction"),
    ],
)
def test_values_outside_their_range_are_refused_by_name(make: Callable[[], object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make()


TORCH = {
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "CosineAnnealingLR": {"T_max": 8},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 2, "cycle_momentum": False},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"total_iters": 4},
    "MultiStepLR": {"milestones": [2, 5]},
    "OneCycleLR": {"max_lr": 1.0, "total_steps": 8},
    "PolynomialLR": {"total_iters": 8, "power": 2.0},
    "StepLR": {"step_size": 3},
}


def _pair(name: str) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    node = {"_target_": f"torch.optim.lr_scheduler.{name}", **TORCH[name]}
    return optimizer, make_scheduler(node, optimizer, max_steps=8)


def _step(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", TORCH)
def test_a_schedule_of_torch_continues_from_what_a_checkpoint_may_hold(name: str) -> None:
    undisturbed = _step(*_pair(name), steps=8)
    assert len(set(undisturbed)) > 1
    optimizer, scheduler = _pair(name)
    rates = _step(optimizer, scheduler, steps=3)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    optimizer, scheduler = _pair(name)
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert rates + _step(optimizer, scheduler, steps=5) == undisturbed


def test_every_schedule_of_torch_that_a_folder_may_name_is_tried() -> None:
    assert {f"torch.optim.lr_scheduler.{name}" for name in TORCH} == {
        name for name in allowed() if name.startswith("torch.optim.lr_scheduler.")
    }


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, "follows a metric"),
        (
            {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 1.0, "total_steps": 7},
            "OneCycleLR ends after 7 steps, and the run has 8",
        ),
        (
            {"_target_": "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts", "T_0": 0},
            "WarmRestarts refuses its settings",
        ),
    ],
)
def test_a_schedule_that_cannot_serve_a_run_is_refused(node: dict[str, Any], said: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    with pytest.raises(UserError, match=said):
        make_scheduler(node, optimizer, max_steps=8)


class Halving:
    """A person's own, which has no use for the budget."""

    def __init__(self, *, every: int) -> None:
        self.every = every

    def __call__(self, step: int) -> float:
        return 0.5 ** (step // self.every)


def test_a_schedule_of_ones_own_need_not_take_the_budget() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler({"_target_": f"{__name__}.Halving", "every": 2}, optimizer, max_steps=8)
    assert _step(optimizer, scheduler, 4) == [1.0, 1.0, 0.5, 0.5]
