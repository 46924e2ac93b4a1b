"""Schedules by hand, and the learning rates that a run gets from them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from losslab.errors import UserError
from losslab.training.schedules import Constant, Cosine


def learning_rates(schedule: Callable[[int], float], steps: int, peak: float) -> list[float]:
    """What each optimizer step is taken with."""
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
        (lambda: Cosine(final_fraction=-0.1, max_steps=5), "final_fraction"),
        (lambda: Cosine(final_fraction=1.1, max_steps=5), "final_fraction"),
        (lambda: Cosine(final_fraction=float("nan"), max_steps=5), "final_fraction"),
    ],
)
def test_values_outside_their_range_are_refused_by_name(make: Callable[[], object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        make()
