"""Seeds of a plan: of each loss by itself, and of all losses of a table together."""

import math
from dataclasses import replace

import numpy as np
import pytest

from losslab.comparison.claim_cost import ClaimCost, Deviation, deviation_of, deviations_of
from losslab.comparison.planned_seeds import costs_alone, limit_together, seeds_together
from losslab.comparison.simultaneous import sidak
from losslab.comparison.statistics import POWER, power_of_t


def test_losses_of_unequal_noise_all_have_their_power_in_four_of_five_pilots() -> None:
    """Pilots of eight seeds and five losses that share the baseline's noise; a pooled deviation hides the noisiest."""
    random, stds = np.random.default_rng(4), np.array([1.0, 1.0, 1.0, 1.0, 1.5])
    level, pilots = sidak(5).level, 200
    together = alone = 0
    for _ in range(pilots):
        draws = stds * math.sqrt(0.5) * (random.standard_normal((8, 1)) + random.standard_normal((8, 5)))
        of = {str(loss): dict(enumerate(own)) for loss, own in enumerate(draws.T.tolist())}
        known = {loss: ClaimCost(deviation=one, margin=0.5, level=level) for loss, one in deviations_of(of).items()}
        costs = costs_alone(known, 5)
        own = {loss: one for loss, values in of.items() if (one := deviation_of(list(values.values()))) is not None}
        seeds = seeds_together(costs, own, 5)
        assert seeds is not None

        def suffice(planned: list[int]) -> bool:
            powers = [power_of_t(0.5 / std, n, level) for std, n in zip(stds, planned, strict=True)]
            return min(powers) >= POWER

        together += suffice(list(seeds.values()))
        alone += suffice([cost.planned or 0 for cost in costs.values()])
    assert together / pilots >= 0.78 > 0.5 > alone / pilots


def test_the_whole_table_never_takes_fewer_seeds_and_one_loss_as_many() -> None:
    pooled, own = Deviation(0.02, 30), {"quiet": Deviation(0.005, 7), "loud": Deviation(0.03, 7)}
    costs = {loss: ClaimCost(deviation=pooled, margin=0.01, level=0.03) for loss in own}
    seeds = seeds_together(costs, own, 2)
    assert seeds is not None and seeds["quiet"] == replace(costs["quiet"], level=sidak(2).level).planned
    loud = replace(costs["loud"], deviation=own["loud"], level=sidak(2).level)
    assert seeds["loud"] == loud.planned_at(0.9), "at the level of a table of unequal seeds"
    alone = {"loud": ClaimCost(deviation=own["loud"], margin=0.01)}
    assert seeds_together(alone, own, 1) == {"loud": alone["loud"].planned}
    assert limit_together(1) == pytest.approx(0.8) and limit_together(5) == pytest.approx(0.96)
    assert seeds_together(costs, own | {"quiet": Deviation(0.005, 3)}, 2) is None, "own deviations of few seeds"
