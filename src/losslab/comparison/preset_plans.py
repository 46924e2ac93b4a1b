"""The plan before any run, from noise figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from losslab.comparison.claim_cost import ClaimCost
from losslab.comparison.follow_up import train_command
from losslab.comparison.noise_figures import Figure
from losslab.comparison.planned_seeds import costs_alone, limit_together, seeds_together
from losslab.comparison.plans import PILOT, Plan, Planned, Together, baseline_row
from losslab.comparison.simultaneous import sidak


@dataclass(frozen=True)
class Asked:
    """A loss whose plan is asked for before any run."""

    word: str
    """Its choice as `losslab train` takes it: `focal:gamma=1`."""
    figure: Figure | None
    """Its own noise; None where it was not measured."""


def plan_of_figures(
    figures: Sequence[Figure],
    *,
    words: Sequence[str],
    losses: Sequence[Asked],
    baseline: str,
    margin: float | None,
    power: float,
) -> Plan:
    """The plan before any run, from the noise figures of one preset.

    Args:
        figures: of one preset, metric and baseline; at least one.
        words: of the command, without those of loss and seed.
        losses: beside the baseline; at least one.
    """
    noisiest = max(figures, key=lambda one: one.std)
    margin = margin or noisiest.margin
    of = {one.word: one.figure or noisiest for one in losses}
    known = {
        word: ClaimCost(
            deviation=own.deviation,
            margin=margin,
            power=power,
            level=sidak(len(of)).level,
            seconds_a_pair=2 * own.seconds_a_run / own.at_once,
        )
        for word, own in of.items()
    }
    costs = costs_alone(known, len(of))
    seconds = {word: own.seconds_a_run / own.at_once for word, own in of.items()}
    seconds[baseline] = noisiest.seconds_a_run / noisiest.at_once
    planned = [
        Planned(
            loss=word,
            pairs=0,
            cost=cost,
            seeds=cost.planned,
            interval=cost.interval,
            missing=cost.planned,
            seconds=None if cost.planned is None else cost.planned * seconds[word],
            seconds_a_run=of[word].seconds_a_run,
        )
        for word, cost in costs.items()
    ]
    most = max(one.seeds or PILOT for one in planned)
    planned.append(baseline_row(baseline, 0, planned, most, most * seconds[baseline], noisiest.seconds_a_run))
    return Plan(
        source=noisiest.preset,
        metric=noisiest.metric,
        unit=noisiest.unit,
        margin=margin,
        power=power,
        level=costs[losses[0].word].level,
        baseline=baseline,
        losses=planned,
        pooled=0,
        at_once=noisiest.at_once,
        commands=_commands(words, {one.loss: one.seeds or PILOT for one in planned}),
        notes=_unmeasured(losses, noisiest),
        together=_together(costs, of, words, seconds, baseline) if len(of) > 1 else None,
    )


def _together(
    costs: Mapping[str, ClaimCost],
    of: Mapping[str, Figure],
    words: Sequence[str],
    seconds: Mapping[str, float],
    baseline: str,
) -> Together:
    limit = limit_together(len(of))
    found = seeds_together(costs, {word: own.deviation for word, own in of.items()}, len(of))
    if found is None:
        return Together(limit, None, 0, None, [])
    seeds = {**found, baseline: max(found.values())}
    time = sum(count * seconds[word] for word, count in seeds.items())
    return Together(limit, seeds, sum(seeds.values()), time, _commands(words, seeds))


def _commands(words: Sequence[str], seeds: Mapping[str, int]) -> list[str]:
    """A command for each number of seeds."""
    of: dict[int, list[str]] = {}
    for loss, count in seeds.items():
        of.setdefault(count, []).append(loss)
    return [train_command([*words, f"loss={','.join(own)}"], range(1, count + 1)) for count, own in of.items()]


def _unmeasured(losses: Sequence[Asked], noisiest: Figure) -> list[str]:
    return [
        f"{one.word} was not measured: it is planned with the deviation of {noisiest.loss}, the largest that was"
        for one in losses
        if one.figure is None
    ]
