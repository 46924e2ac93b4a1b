"""The cost of a claim for each loss of a table: seeds and time until a difference of the margin is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from losslab.comparison.claim_cost import ClaimCost, Deviation, are_alike, deviation_of, pooled
from losslab.comparison.durations import at_once, wall_seconds
from losslab.comparison.rows import Row
from losslab.comparison.runs.contenders import Contender, Setting
from losslab.comparison.statistics import POWER


@dataclass(frozen=True)
class Claim:
    """A loss against its baseline."""

    label: str
    pairs: int
    """Seeds that both have."""
    cost: ClaimCost
    unpaired: ClaimCost
    """The same without pairs: of seeds that have nothing in common."""
    seconds_a_run: float | None
    """Median wall seconds of a run of the loss."""


@dataclass(frozen=True)
class Claims:
    """The losses of a table that have a deviation."""

    margin: float
    """The difference that is to be found."""
    of: list[Claim]
    at_once: float
    """Runs that shared the machine."""
    baseline_seconds: float | None
    """Median wall seconds of a run of the baseline; of several strata, of all of them."""

    @property
    def is_pooled(self) -> bool:
        """Whether all losses share one deviation."""
        return len({id(claim.cost.deviation) for claim in self.of}) == 1

    @property
    def is_enough(self) -> bool:
        """Whether each of them makes a single number."""
        return all(claim.cost.is_enough for claim in self.of)


def make_claims(
    rows: Sequence[Row],
    contenders: Sequence[Contender],
    baselines: Mapping[Setting, Contender],
    *,
    margin: float | None,
    power: float = POWER,
) -> Claims | None:
    """The cost of each claim of a table; None where there is no margin, or no loss with a deviation.

    Args:
        margin: the difference that is to be found, in the unit of the metric.
    """
    claimed = [(row, row.paired, row.deviation) for row in rows if row.paired is not None]
    if margin is None or all(deviation is None for *_, deviation in claimed):
        return None
    by_label = {c.label: c for c in contenders}
    values = {row.label: row.values for row in rows}
    runs = [run for c in contenders for run in c.runs.values()]
    side_by_side = at_once(runs)
    deviations = [own for seeds in values.values() if (own := deviation_of(list(seeds.values()))) is not None]
    shared = len(deviations) > 1 and are_alike(deviations)
    found: list[Claim] = []
    for row, result, deviation in claimed:
        if deviation is None:
            continue
        contender = by_label[row.label]
        baseline = baselines[contender.stratum]
        seconds = [wall_seconds(list(c.runs.values())) for c in (contender, baseline)]
        known = None if None in seconds else sum(filter(None, seconds)) / side_by_side
        apart = list(values.values()) if shared else [values[c.label] for c in (contender, baseline)]
        found.append(
            Claim(
                label=row.label,
                pairs=result.n,
                cost=ClaimCost(
                    deviation=deviation, margin=margin, power=power, level=result.level, seconds_a_pair=known
                ),
                unpaired=ClaimCost(
                    deviation=_of_values(apart),
                    margin=margin,
                    power=power,
                    level=result.level,
                    seconds_a_pair=known,
                    paired=False,
                ),
                seconds_a_run=seconds[0],
            )
        )
    return Claims(
        margin=margin,
        of=found,
        at_once=side_by_side,
        baseline_seconds=wall_seconds([run for c in baselines.values() for run in c.runs.values()]),
    )


def _of_values(values: Sequence[Mapping[int, float]]) -> Deviation:
    """The deviation of one run's value, pooled over losses."""
    return pooled([own for own in values if len(own) > 1 and len(set(own.values())) > 1])
