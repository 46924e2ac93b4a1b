"""Checks that a loss returns sums over positions, whatever their order, number and chunks."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from losslab.conformance.subject import Outcome, Subject, near
from losslab.errors import Fault
from losslab.losses.execution import limit_rows


def sums_add_up(subject: Subject) -> str:
    """Σ over a batch = Σ over its parts, values and weights, and twice the weight is twice the total."""
    problem = subject.problem()
    whole, middle = problem.features, len(problem.features) // 3
    rows = (slice(middle), slice(middle, None))
    parts = [subject.run(whole[part], problem.projection, step=whole) for part in rows]
    all_at_once = subject.run(whole, problem.projection)
    if not subject.loss.position_wise:
        parts = [all_at_once]  # each position depends on the whole batch
    total, weight = (sum(getattr(part, name) for part in parts) for name in ("total", "weight"))
    if not near(all_at_once.total, total):
        raise Fault(
            f"a batch has the total {all_at_once.total:.6g} and its two parts together {total:.6g}: it divides by the "
            "number of positions (a mean instead of a sum), or one position's loss depends on the others"
        )
    if not near(all_at_once.weight, weight):
        raise Fault(f"a batch has the weight {all_at_once.weight:.6g} and its two parts together {weight:.6g}")
    twice = subject.run(replace(whole, weight=2 * whole.weight), problem.projection)
    if not (near(twice.total, 2 * all_at_once.total) and near(twice.weight, 2 * all_at_once.weight)):
        raise Fault(
            "twice the weight is not twice the total and twice the weight: features.weight is not multiplied in"
        )
    return f"total {all_at_once.total:.4g} over weight {all_at_once.weight:.4g}"


def order_does_not_matter(subject: Subject) -> str:
    problem = subject.problem()
    order = torch.randperm(len(problem.features), generator=torch.Generator().manual_seed(3))
    straight, shuffled = (
        subject.run(features, problem.projection) for features in (problem.features, problem.features[order])
    )
    places = problem.features.places(order)
    if not (near(straight.total, shuffled.total) and near(straight.hidden[places], shuffled.hidden)):
        raise Fault("shuffled positions have another total or gradient: one position's loss depends on its neighbours")
    return "shuffled positions, the same sums"


def ignored_positions_change_nothing(subject: Subject) -> str:
    """Whatever they hold, NaN included."""
    problem = subject.problem()
    features = problem.features
    counted = features.weight != 0
    target = features.target.clone()
    target[~counted] = math.nan if target.is_floating_point() else -100
    ignored = features.places(~counted)
    hidden = features.hidden.clone()
    hidden[ignored] = math.nan
    among = subject.run(replace(features, hidden=hidden, target=target), problem.projection)
    alone = subject.run(features[counted], problem.projection)
    if not (near(among.total, alone.total) and near(among.weight, alone.weight)):
        raise Fault(
            f"with ignored positions among them the same positions have the total {among.total:.6g} instead of "
            f"{alone.total:.6g}: positions of weight 0 are counted (smoothing or penalty over padding, or 0 × NaN); "
            "drop them with features.kept() first"
        )
    if among.hidden[ignored].abs().sum() != 0 or not near(among.projection, alone.projection):
        raise Fault("ignored positions have a gradient: drop them with features.kept() before anything is computed")
    return f"{int((~counted).sum())} of {len(counted)} positions ignored"


def all_ignored_is_zero(subject: Subject) -> str:
    problem = subject.problem()
    ignored = replace(problem.features, weight=torch.zeros_like(problem.features.weight))
    outcome = subject.run(ignored, problem.projection)
    if not torch.equal(outcome.total, torch.zeros(())):
        raise Fault(
            f"a batch that is all ignored has the total {outcome.total:.6g}, not 0: it divides by its own count"
        )
    if outcome.hidden.abs().sum() != 0 or outcome.projection.abs().sum() != 0:
        raise Fault(
            "a batch that is all ignored has a gradient that is not 0 (NaN, mostly: 0 / 0 or a mean over nothing)"
        )
    return "0, with a gradient of 0 that is part of the graph"


def chunks_do_not_matter(subject: Subject) -> str:
    problem = subject.problem()
    at_once = subject.run(problem.features, problem.projection)
    for rows in (1, 5):
        with limit_rows(rows):
            outcome = subject.run(problem.features, problem.projection)
        if not all(near(getattr(outcome, name), getattr(at_once, name)) for name in Outcome.__annotations__):
            raise Fault(
                f"{rows} position(s) at a time give the total {outcome.total:.6g} instead of {at_once.total:.6g}: one "
                "position's loss depends on the others, or on state that a call changes; say position_wise = False"
            )
    return "1, 5 or all positions at a time"


def same_call_same_value(subject: Subject) -> str:
    problem = subject.problem()
    once, again = (subject.run(problem.features, problem.projection) for _ in range(2))
    if not all(torch.equal(getattr(once, name), getattr(again, name)) for name in Outcome.__annotations__):
        raise Fault("the same call gives another result the second time: it draws random numbers or keeps state")
    return "bit for bit"
