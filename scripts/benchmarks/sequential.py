"""How often sweeps that add seeds until each loss is decided err, and how many seeds they take beside a fixed number of
them, on made-up families of losses.

A family is five losses against one baseline, with differences of standard deviation 1 as in statistics.py, a
margin of 0.8 and at most 40 seeds. A verdict is wrong where it is better or worse without a true difference or on the
other side of it, and equivalent where the true difference is the margin or more; a family errs with any wrong verdict.
Right is better or worse where there is a difference, and equivalent where there is less than the margin.

The fixed design trains n seeds of every loss and looks once, with the intervals of `losslab compare` and the same rule.
It is chosen before the differences are known, so that one n serves all effects: the n at which its share of right
verdicts, averaged over the effects, is that of the growing sweep. Beside it stands the n of a design that had known the
effect, and has as much power at that one (counted up to 99.9%).
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics import DRAW, ERROR, GATED, LOSSES, MARGIN, Array
from benchmarks.tools.options import add_families
from losslab.comparison.simultaneous import SEEDS_FOR_CORRELATION, correlated, excludes_zero, is_inside, sidak
from losslab.sequential.rule import Rule

RULE = Rule(margin=MARGIN, max_seeds=40, losses=LOSSES)
EFFECTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""True differences, in margins."""
MIXED = (0.0, 0.5, 1.0, 1.5, 3.0)
"""Those of the five losses of a family in which each has another."""
CORRELATIONS = (0.0, 0.5)
ENOUGH = 10_000
"""Families that what is promised is judged on."""
RATIO, RATIO_WITHOUT = 0.7, 1.0
"""Limits of seeds beside the fixed design: averaged over the effects, and where nothing differs."""
MOST_FIXED = 100
_FULL = 0.999
_AT_ONCE = 2_000


@dataclass(frozen=True)
class Ends:
    """Ends of growing sweeps, [families, LOSSES] each."""

    seeds: NDArray[np.int_]
    """When the loss was decided; max_seeds where it never was."""
    word: NDArray[np.int_]
    """−1 better, 1 worse, 2 equivalent, 0 undecided."""
    missed: NDArray[np.bool_]
    """Whether a repeated interval, at any number of seeds, misses the true mean."""

    def wrong(self, effect: Array) -> NDArray[np.bool_]:
        """For true differences in margins, of each loss."""
        on_a_side = (np.abs(self.word) == 1) & (self.word != np.sign(effect))
        return on_a_side | (self.word == 2) & (np.abs(effect) >= 1)

    def right(self, effect: Array) -> NDArray[np.bool_]:
        return (self.word != 0) & ~self.wrong(effect)


def noise(distribution: str, correlation: float, families: int, seeds: int) -> Array:
    """[families, LOSSES, seeds] differences without a true mean, of standard deviation 1."""
    random = np.random.default_rng([list(DRAW).index(distribution), round(100 * correlation), 7])
    draw = DRAW[distribution]
    shared, own = draw(random, (families, 1, seeds)), draw(random, (families, LOSSES, seeds))
    return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own


def grow(differences: Array, effect: Array) -> Ends:
    """Sweeps of the true differences `effect`, [LOSSES] in margins."""
    parts = []
    for first in range(0, len(differences), _AT_ONCE):
        mean = effect[:, None] * MARGIN
        found = RULE.intervals(differences[first : first + _AT_ONCE] + mean)
        low, high = found[..., 0], found[..., 1]
        decides = RULE.decides(found)
        decided, at = decides.any(axis=-1), decides.argmax(axis=-1)
        low_at, high_at = (np.take_along_axis(end, at[..., None], axis=-1)[..., 0] for end in (low, high))
        word = np.where(high_at < 0, -1, np.where(low_at > 0, 1, 2))
        missed = ((low > mean) | (high < mean)).any(axis=-1)
        parts.append((np.where(decided, at + 1, RULE.max_seeds), np.where(decided, word, 0), missed))
    return Ends(*(np.concatenate(part) for part in zip(*parts, strict=True)))


@lru_cache(maxsize=256)
def critical(n: int, correlation: float) -> float:
    """c of compare's interval for n seeds of five losses with this correlation."""
    if n < SEEDS_FOR_CORRELATION or correlation == 0:
        return sidak(LOSSES).critical(n)
    drawn = np.random.default_rng(0).standard_normal((n, LOSSES))
    drawn -= drawn.mean(axis=0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(drawn.T)), drawn.T)
    wanted = np.full((LOSSES, LOSSES), correlation) + (1 - correlation) * np.eye(LOSSES)
    return correlated((np.linalg.cholesky(wanted) @ white).T).critical(n)


def fixed_power(distribution: str, correlation: float, draws: int) -> Array:
    """[MOST_FIXED + 1, EFFECTS], the share of right verdicts after one look at n seeds; 0 below two."""
    random = np.random.default_rng([list(DRAW).index(distribution), 8])
    differences = noise_of_one(distribution, correlation, random, draws)
    found = np.zeros((MOST_FIXED + 1, len(EFFECTS)))
    for n in range(2, MOST_FIXED + 1):
        own = differences[:, :n]
        mean, half = own.mean(axis=1), critical(n, correlation) * own.std(axis=1, ddof=1) / math.sqrt(n)
        for i, effect in enumerate(EFFECTS):
            low, high = mean + effect * MARGIN - half, mean + effect * MARGIN + half
            if effect == 0:
                right = is_inside(low, high, MARGIN) & ~np.asarray(excludes_zero(low, high))
            else:
                right = (low > 0) | is_inside(low, high, MARGIN) & (effect < 1) & (high > 0)
            found[n, i] = np.mean(right)
    return found


def noise_of_one(distribution: str, correlation: float, random: np.random.Generator, draws: int) -> Array:
    """[draws, MOST_FIXED], the differences of one loss of a family."""
    draw = DRAW[distribution]
    shape = (draws, MOST_FIXED)
    return math.sqrt(correlation) * draw(random, shape) + math.sqrt(1 - correlation) * draw(random, shape)


def seeds_for(power: float, by_seeds: Array) -> float:
    """The number of seeds at which a fixed design has this power, between whole ones by a straight line; infinite above
    MOST_FIXED."""
    most = np.maximum.accumulate(by_seeds)
    if most[-1] < power:
        return math.inf
    above = int(np.argmax(most >= power))
    below = most[above - 1]
    return above - 1 + float((power - below) / (most[above] - below))


@dataclass(frozen=True)
class Outcome:
    """Figures of one distribution and correlation."""

    error: dict[str, float]
    """Kind of family → the share that errs."""
    missed: float
    """The share of families with an interval that misses its true mean at any number of seeds."""
    seeds: Array
    power: Array
    """[EFFECTS]: mean number of seeds of a loss, and its share of right verdicts."""
    fixed: float
    """The number of seeds of the fixed design with as much power on average."""
    foreseen: Array
    """[EFFECTS]: that of a design that had known the effect."""

    @property
    def ratio(self) -> Array:
        return self.seeds / self.fixed

    @property
    def faults(self) -> list[str]:
        found = [f"{kind}: {error:.2%} of families err" for kind, error in self.error.items() if error > ERROR]
        if self.ratio.mean() > RATIO:
            found.append(f"{self.ratio.mean():.2f} of the fixed design's seeds")
        if self.ratio[0] > RATIO_WITHOUT:
            found.append(f"{self.ratio[0]:.2f} of the fixed design's seeds where nothing differs")
        return found


def simulate(distribution: str, correlation: float, families: int) -> Outcome:
    differences = noise(distribution, correlation, families, RULE.max_seeds)
    error, seeds, power, missed = {}, [], [], 0.0
    for effect in EFFECTS:
        effects = np.full(LOSSES, effect)
        ends = grow(differences, effects)
        error[f"{effect:g}"] = float(ends.wrong(effects).any(axis=1).mean())
        seeds.append(ends.seeds.mean())
        power.append(ends.right(effects).mean())
        missed = float(ends.missed.any(axis=1).mean())
    error["mixed"] = float(grow(differences, np.array(MIXED)).wrong(np.array(MIXED)).any(axis=1).mean())
    by_seeds = fixed_power(distribution, correlation, 2 * families)
    foreseen = [seeds_for(min(own, _FULL), by_seeds[:, i]) for i, own in enumerate(power)]
    fixed = seeds_for(float(np.mean(power)), by_seeds.mean(axis=1))
    return Outcome(error, missed, np.array(seeds), np.array(power), fixed, np.array(foreseen))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_families(parser, ENOUGH)


def main(arguments: argparse.Namespace) -> int:
    """Print the tables; 1 where something fails that is promised of normal and t3 differences."""
    families, started = arguments.families, time.monotonic()
    print(
        f"{families:,} families of {LOSSES} losses a kind; margin {MARGIN} deviations, at most {RULE.max_seeds} seeds, "
        f"looked at after each.\nEffects in margins; of `mixed` the losses have {', '.join(f'{e:g}' for e in MIXED)}. "
        f"± one standard error of a rate of 5%: {100 * math.sqrt(0.05 * 0.95 / families):.2f} points.\n"
        "Exponential and lognormal differences, a fifth as many families, are skewed: no t interval holds for them."
    )
    faults, outcomes = [], {}
    kinds = [*(f"{effect:g}" for effect in EFFECTS), "mixed"]
    print(f"\nfamilies that err, %\n{'differences':<12}{'ρ':>4}" + "".join(f"{kind:>8}" for kind in kinds), end="")
    print("   an interval misses its mean, ever")
    for distribution, correlation in itertools.product(DRAW, CORRELATIONS):
        gated = distribution in GATED
        outcome = simulate(distribution, correlation, families if gated else max(families // 5, 1))
        cells = "".join(f"{100 * outcome.error[kind]:>8.2f}" for kind in kinds)
        print(f"{distribution:<12}{correlation:>4}{cells}   {100 * outcome.missed:.2f}", flush=True)
        if gated:
            outcomes[distribution, correlation] = outcome
            faults += [f"{distribution}, ρ {correlation}, effect {text}" for text in outcome.faults]
    print(f"\nseeds of a loss, and right verdicts\n{'effect':<34}" + "".join(f"{e:>8g}" for e in EFFECTS) + "    mean")
    for (distribution, correlation), outcome in outcomes.items():
        name = f"{distribution}, ρ {correlation}"
        lines = {
            f"{name}: right, %": (100 * outcome.power, 1),
            "  mean seeds": (outcome.seeds, 1),
            f"  / a fixed {outcome.fixed:.1f} of equal power": (outcome.ratio, 2),
            "  fixed, had it known the effect": (outcome.foreseen, 1),
            "  / that": (outcome.seeds / outcome.foreseen, 2),
        }
        for label, (values, digits) in lines.items():
            print(f"{label:<34}" + "".join(f"{value:>8.{digits}f}" for value in [*values, values.mean()]))
    print(f"{time.monotonic() - started:.0f} s")
    if families < ENOUGH:
        print(f"whether this is as promised, only {ENOUGH:,} families can say")
        return 0
    print("\n".join(faults) if faults else "everything that is promised of normal and t3 differences holds")
    return 1 if faults else 0
