"""The seeds of a plan: of each loss by itself, and of all losses of a table together.

By itself, a loss goes by the deviation that losses share where theirs agree, at its upper limit: four of five pilots
then plan enough for it. That all K losses of a table have enough is another event. It goes by each loss's own deviation
at its upper 1 − 0.2/K limit (Bonferroni), which holds for any deviations and correlations; a pooled one hides that a
loss is noisier than the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from losslab.comparison.claim_cost import CONFIDENCE, ClaimCost, Deviation
from losslab.comparison.simultaneous import sidak

Costs = Mapping[str, ClaimCost]


def at_the_level_of(costs: Costs, seeds: Mapping[str, int | None], size: int) -> dict[str, ClaimCost]:
    """The costs at the level that `losslab compare` has where each loss has these seeds: where not all have as many, no
    correlation counts, and the level is Šidák's.

    Args:
        size: comparisons of the table.
    """
    alike = len(set(seeds.values())) == 1
    return dict(costs) if alike else {label: replace(cost, level=sidak(size).level) for label, cost in costs.items()}


def costs_alone(costs: Costs, size: int) -> dict[str, ClaimCost]:
    """The cost of each loss by itself, at the level that its plan leads to."""
    return at_the_level_of(costs, {label: cost.planned for label, cost in costs.items()}, size)


def limit_together(losses: int) -> float:
    """The confidence of each upper limit with which those of so many losses hold together in four of five pilots."""
    return 1 - (1 - CONFIDENCE) / losses


def seeds_together(costs: Costs, own: Mapping[str, Deviation], size: int) -> dict[str, int] | None:
    """Seeds of each loss so that all of them have their power in four of five pilots; never fewer than by itself. None
    where a deviation rests on too little.

    Args:
        costs: of each loss by itself.
        own: the deviation of each loss's own differences.
        size: comparisons of the table.
    """
    limit = limit_together(len(costs))

    def seeds(of: Costs) -> dict[str, int] | None:
        found = {}
        for label, cost in of.items():
            wanted = replace(cost, deviation=own[label]).planned_at(limit)
            if wanted is None:
                return None
            found[label] = max(wanted, cost.planned or 0)
        return found

    found = seeds(costs)
    return None if found is None else seeds(at_the_level_of(costs, found, size))
