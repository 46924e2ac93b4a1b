"""Whether plans from simulated pilots suffice, by the functions that `losslab plan` calls.

A pilot has eight seeds. The difference of loss i in a seed is σ_i · (√ρ · b + √(1 − ρ) · e_i): b is the noise of the
baseline's run, which all differences share. A plan suffices for a loss if a paired t test of so many seeds finds a true
difference of the margin with power 0.8: exactly, at the level that the table's intervals have for such seeds under the
true correlation. The plan of each loss by itself and that of the whole table are counted apart; the second suffices if
it does for all losses at once. The pilot is then grown to the plan of each loss, and the table made of all its seeds:
the share of losses that it finds, and its family-wise error where nothing differs, say what planning by the very data
does to them.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools.options import positive
from losslab.comparison.claim_cost import ClaimCost, deviation_of, deviations_of
from losslab.comparison.planned_seeds import costs_alone, seeds_together
from losslab.comparison.plans import PILOT
from losslab.comparison.simultaneous import LEVEL, Family, excludes_zero, family_of, interval, joint, sidak
from losslab.comparison.statistics import POWER, power_of_t

Array = NDArray[np.float64]
PILOTS = 2000
ENOUGH = 0.78
"""The share of pilots whose plans are to suffice."""
ANCHORS = (PILOT, 10, 14, 20, 32, 64, 128, 512)
"""Numbers of seeds for which the level is worked out."""


@dataclass(frozen=True)
class Setting:
    """A kind of pilot."""

    deviations: tuple[float, ...]
    correlation: float
    margin: float = 0.5
    """In deviations of the first loss."""
    gated: bool = True
    """Whether plans of each loss by itself are to suffice; those of the whole table always are."""

    @property
    def told(self) -> str:
        sizes = sorted(set(self.deviations))
        noise = "equal" if len(sizes) == 1 else f"{sizes[0]:g} and {sizes[-1]:g}"
        return f"{len(self.deviations):>6}{self.correlation:>6g}  {noise:<12}{self.margin:>6g}"

    def draw(self, random: np.random.Generator, seeds: int) -> Array:
        """[seeds, losses] differences without a true mean."""
        shared, own = random.standard_normal((seeds, 1)), random.standard_normal((seeds, len(self.deviations)))
        noise = math.sqrt(self.correlation) * shared + math.sqrt(1 - self.correlation) * own
        return noise * np.array(self.deviations)


SETTINGS = (
    Setting((1.0,), 0.0),
    Setting((1.0,), 0.0, margin=1.0),
    Setting((1.0,), 0.0, margin=0.25),
    Setting((1.0,) * 5, 0.0),
    Setting((1.0,) * 5, 0.5),
    Setting((1.0,) * 5, 0.8),
    Setting((1.0, 1.0, 1.0, 2.0, 2.0), 0.5, gated=False),
    Setting((1.0, 1.0, 1.0, 1.0, 1.5), 0.5, gated=False),
)


@cache
def _levels(losses: int, correlation: float) -> Array:
    """The levels at ANCHORS."""
    matrix = np.full((losses, losses), correlation) + (1 - correlation) * np.eye(losses)
    return np.array([joint(matrix, n).level for n in ANCHORS])


def true_level(losses: int, correlation: float, seeds: int) -> float:
    """The level of each comparison of a table, under the true correlation; it is nearly straight in 1 / seeds."""
    if losses == 1:
        return LEVEL
    levels = _levels(losses, correlation)
    return float(np.interp(1 / seeds, 1 / np.array(ANCHORS[::-1]), levels[::-1]))


def by_seed(differences: Array) -> dict[int, dict[int, float]]:
    """Loss → seed → difference."""
    return {loss: dict(enumerate(own)) for loss, own in enumerate(differences.T.tolist())}


def planned_seeds(differences: Array, margin: float) -> tuple[list[int], list[int]]:
    """The plans of a pilot [seeds, losses], as `losslab plan` makes them: of each loss by itself, and of the table."""
    losses = by_seed(differences)
    level = family_of(list(losses.values())).level
    known = {
        str(loss): ClaimCost(deviation=deviation, margin=margin, level=level)
        for loss, deviation in deviations_of(losses).items()
    }
    costs = costs_alone(known, len(known))
    own = {str(loss): deviation for loss, of in losses.items() if (deviation := deviation_of(list(of.values())))}
    together = seeds_together(costs, own, len(known))
    assert together is not None, "eight seeds are enough"
    return [cost.planned or 0 for cost in costs.values()], list(together.values())


def true_powers(setting: Setting, seeds: Array) -> list[float]:
    """The power of each loss with these seeds, at the level of the table that has them."""
    size, alike = len(seeds), len(set(seeds.tolist())) == 1
    return [
        power_of_t(
            setting.margin / deviation,
            int(n),
            true_level(size, setting.correlation, int(n)) if alike else sidak(size).level,
        )
        for n, deviation in zip(seeds, setting.deviations, strict=True)
    ]


@dataclass(frozen=True)
class Simulated:
    """The pilots of a setting, and their plans."""

    plans: Array
    """[2, pilots, losses] seeds: of each loss by itself, and of the whole table."""
    powers: Array
    """[2, pilots, losses], the true power with them."""
    found: float
    """The share of losses that the grown table finds where all differ by the margin."""
    errors: float
    """Its family-wise error where none does."""


def simulate(setting: Setting, pilots: int) -> Simulated:
    random = np.random.default_rng(SETTINGS.index(setting) if setting in SETTINGS else 0)
    size = len(setting.deviations)
    plans, powers = np.empty((2, 2, pilots, size))
    found, errors = 0, 0
    for i in range(pilots):
        pilot = setting.draw(random, PILOT)
        plans[:, i] = planned_seeds(pilot, setting.margin)
        powers[:, i] = [true_powers(setting, own) for own in plans[:, i]]
        seeds = max(int(plans[0, i].max()), PILOT)
        grown = np.concatenate([pilot, setting.draw(random, seeds - PILOT)])
        family = Family(size, true_level(size, setting.correlation, seeds))
        errors += bool(rejected(grown, family).any())
        found += int(rejected(grown + setting.margin, family).sum())
    return Simulated(plans, powers, found / (pilots * size), errors / pilots)


def rejected(differences: Array, family: Family) -> NDArray[np.bool_]:
    """[losses]: where the table says that a loss differs."""
    n = len(differences)
    mean, std = differences.mean(axis=0), differences.std(axis=0, ddof=1)
    return np.asarray(excludes_zero(*interval(mean, std, n, family)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pilots", type=positive, default=PILOTS, metavar="N", help="of each setting (default: %(default)s)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Print a table; 1 where plans suffice too seldom."""
    pilots = arguments.pilots
    started = time.monotonic()
    print(
        f"{pilots:,} pilots of {PILOT} seeds a setting, normal differences. Plans of each loss by itself: seeds, per\n"
        f"cent with a true power of {POWER:g} or more, and that of the noisiest loss; then per cent of losses found\n"
        "where all differ by the margin, and family-wise error where none does. Plans of the whole table: seeds of\n"
        f"a loss, and per cent of pilots that give every loss a power of {POWER:g}."
    )
    heads = f"{'seeds':>7}{'10–90%':>10}{'suffice':>9}{'noisiest':>10}{'found':>8}{'error':>8}{'table':>8}"
    heads += f"{'10–90%':>10}{'suffice':>9}"
    print(f"{'losses':>6}{'ρ':>6}  {'deviations':<12}{'margin':>6}{heads}")
    short = []
    for setting in SETTINGS:
        made = simulate(setting, pilots)
        enough = made.powers >= POWER
        each, noisiest, table = enough[0].mean(), enough[0, :, -1].mean(), enough[1].all(axis=1).mean()
        (low, middle, high), (least, usual, most) = (np.quantile(own, [0.1, 0.5, 0.9]) for own in made.plans)
        cells = [f"{100 * share:.1f}" for share in (each, noisiest, made.found, made.errors, table)]
        print(
            f"{setting.told}{middle:>7.0f}{f'{low:.0f}–{high:.0f}':>10}{cells[0]:>9}{cells[1]:>10}{cells[2]:>8}"
            f"{cells[3]:>8}{usual:>8.0f}{f'{least:.0f}–{most:.0f}':>10}{cells[4]:>9}",
            flush=True,
        )
        short += [f"{setting.told}: each loss"] if setting.gated and each < ENOUGH else []
        short += [f"{setting.told}: the table"] if table < ENOUGH else []
    print(f"{time.monotonic() - started:.0f} s")
    if pilots < PILOTS:
        print(f"whether plans suffice as often as promised, only {PILOTS:,} pilots can say")
        return 0
    print(
        "\n".join(f"too seldom: {text}" for text in short)
        or f"each loss (equal deviations) and every table: at least {ENOUGH:.0%}"
    )
    return 1 if short else 0
