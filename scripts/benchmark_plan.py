"""Whether plans from simulated pilots suffice, by the functions that `losslab plan` calls.

A pilot has eight seeds. The difference of loss i in a seed is σ_i · (√ρ · b + √(1 − ρ) · e_i): b is the noise of the
baseline's run, which all differences share. A plan suffices for a loss if a paired t test of so many seeds finds a true
difference of the margin with power 0.8: exactly, at the level that the table's intervals have under the true
correlation. The pilot is then grown to its plan, and the table made of all its seeds: the share of losses that it
finds, and its family-wise error where nothing differs, say what planning by the very data does to them.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from functools import cache

import numpy as np
from benchmark_options import positive
from numpy.typing import NDArray

from losslab.comparison.claim_cost import ClaimCost, deviations_of
from losslab.comparison.planning import PILOT
from losslab.comparison.simultaneous import LEVEL, Family, excludes_zero, family_of, interval, joint
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


def planned_seeds(differences: Array, margin: float) -> list[int]:
    """The plan of each loss from a pilot [seeds, losses], as `losslab plan` makes it."""
    losses = by_seed(differences)
    level = family_of(list(losses.values())).level
    found = []
    for deviation in deviations_of(losses).values():
        seeds = ClaimCost(deviation=deviation, margin=margin, level=level).planned
        assert seeds is not None, "eight seeds are enough"
        found.append(seeds)
    return found


def simulate(setting: Setting, pilots: int) -> tuple[Array, Array, float, float]:
    """Planned seeds [pilots, losses], their true power likewise, the share of losses that the grown table finds where
    all differ by the margin, and its family-wise error where none does."""
    random = np.random.default_rng(SETTINGS.index(setting) if setting in SETTINGS else 0)
    size = len(setting.deviations)
    plans, powers = np.empty((2, pilots, size))
    found, errors = 0, 0
    for i in range(pilots):
        pilot = setting.draw(random, PILOT)
        plans[i] = planned_seeds(pilot, setting.margin)
        for loss, seeds in enumerate(map(int, plans[i])):
            level = true_level(size, setting.correlation, seeds)
            powers[i, loss] = power_of_t(setting.margin / setting.deviations[loss], seeds, level)
        seeds = max(int(plans[i].max()), PILOT)
        grown = np.concatenate([pilot, setting.draw(random, seeds - PILOT)])
        family = Family(size, true_level(size, setting.correlation, seeds))
        errors += bool(rejected(grown, family).any())
        found += int(rejected(grown + setting.margin, family).sum())
    return plans, powers, found / (pilots * size), errors / pilots


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
        f"{pilots:,} pilots of {PILOT} seeds a setting, normal differences. Per cent of\n"
        f"plans with a true power of {POWER:g} or more (each loss; all losses of a pilot), then of the table of all\n"
        "seeds: losses found where all differ by the margin, and family-wise error where none differs."
    )
    heads = f"{'seeds':>7}{'10–90%':>10}{'suffice':>9}{'all':>7}{'found':>8}{'error':>8}"
    print(f"{'losses':>6}{'ρ':>6}  {'deviations':<12}{'margin':>6}{heads}")
    short = []
    for setting in SETTINGS:
        plans, powers, found, error = simulate(setting, pilots)
        suffice, all_of = float((powers >= POWER).mean()), float((powers >= POWER).all(axis=1).mean())
        low, middle, high = np.quantile(plans, [0.1, 0.5, 0.9])
        cells = [f"{100 * share:.1f}" for share in (suffice, all_of, found, error)]
        print(
            f"{setting.told}{middle:>7.0f}{f'{low:.0f}–{high:.0f}':>10}{cells[0]:>9}{cells[1]:>7}{cells[2]:>8}{cells[3]:>8}",
            flush=True,
        )
        if setting.gated and suffice < ENOUGH:
            short.append(setting.told)
    print(f"{time.monotonic() - started:.0f} s")
    if pilots < PILOTS:
        print(f"whether plans suffice as often as promised, only {PILOTS:,} pilots can say")
        return 0
    print(
        "\n".join(f"too seldom: {text}" for text in short) or f"equal deviations: every share is at least {ENOUGH:.0%}"
    )
    return 1 if short else 0
