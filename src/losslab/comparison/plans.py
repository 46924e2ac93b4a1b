"""A plan: seeds and time until each loss of a table is told from the baseline, if it differs by a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from losslab.comparison.claim_cost import ClaimCost

PILOT = 8
"""Seeds that make a pilot."""


@dataclass(frozen=True)
class Planned:
    """A loss, or the baseline."""

    loss: str
    pairs: int
    """Seeds that it has in common with the baseline; of the baseline, its own."""
    cost: ClaimCost | None
    """None for the baseline."""
    seeds: int | None
    """Seeds to have in the end; None where the pilot is too small to say."""
    interval: tuple[int, int]
    """Seeds at both ends of the deviation's 95% interval; of the baseline, the largest of its losses."""
    missing: int | None
    """Runs until then."""
    seconds: float | None
    """Seconds of this machine that those take, at so many at once; None where no record says."""
    seconds_a_run: float | None


@dataclass(frozen=True)
class Together:
    """The seeds with which every loss of a table has the power, and not only each one by itself."""

    limit: float
    """The confidence of the upper limit that each loss's own deviation is taken at."""
    seeds: dict[str, int] | None
    """Label → seeds to have in the end, the baseline's among them; None where the pilot is too small to say."""
    missing: int
    """Runs until then."""
    seconds: float | None
    commands: list[str]


@dataclass(frozen=True)
class Plan:
    """Seeds, time and commands."""

    source: str
    """The folder, or the preset."""
    metric: str
    unit: str
    margin: float
    """The difference that is to be found."""
    power: float
    level: float
    """The unadjusted two-sided level of each comparison."""
    baseline: str
    losses: list[Planned]
    """The losses that are compared, and the baseline last."""
    pooled: int
    """Losses that share one deviation; 0 where each has its own."""
    at_once: float
    commands: list[str]
    """Commands for a shell: those of the plan, or of a pilot where there is no plan yet; none where nothing is missing,
    or nothing says how the runs were made."""
    notes: list[str]
    together: Together | None
    """None where there is one loss alone."""

    @property
    def is_enough(self) -> bool:
        """Whether each loss has a number."""
        return all(one.seeds is not None for one in self.losses)

    @property
    def seconds(self) -> float | None:
        """Seconds of this machine for all runs that are missing."""
        known = [one.seconds for one in self.losses if one.seconds is not None]
        return sum(known) if len(known) == len(self.losses) else None


def baseline_row(
    label: str, runs: int, losses: Sequence[Planned], missing: int, seconds: float | None, seconds_a_run: float | None
) -> Planned:
    """The baseline, which takes as many seeds as the loss that takes most."""
    enough = all(one.seeds is not None for one in losses)
    return Planned(
        loss=label,
        pairs=runs,
        cost=None,
        seeds=max(one.seeds or 0 for one in losses) if enough else None,
        interval=(max(one.interval[0] for one in losses), max(one.interval[1] for one in losses)),
        missing=missing if enough else None,
        seconds=seconds if enough else None,
        seconds_a_run=seconds_a_run,
    )
