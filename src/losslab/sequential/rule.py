"""The rule by which a loss beside its baseline is decided while seeds are added, with an error that holds whenever it
stops.

After every seed the repeated interval of the mean paired difference is mean ± c_n · s / √n (Jennison and Turnbull 1984,
doi 10.1016/0197-2456(84)90148-X). The bounds c_n spend the error α = level / losses (Bonferroni) bit by bit (Lan
and DeMets 1983, doi 10.1093/biomet/70.3.659): the probability that one of the first n intervals misses the true mean is
α · (n / max_seeds)², exactly so for normal differences. So all intervals of all losses, at every number of seeds, hold
the true means with a probability of at least 1 − level, and a verdict that follows from one of them keeps this error
whenever it comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from losslab.errors import UserError
from losslab.sequential.t_paths import Array, Path

FIRST_LOOK = 6
"""The number of seeds at the first look: as many as a claim needs (`comparison.statistics.SEEDS_FOR_A_CLAIM`), because
n differences of any symmetric distribution are all of one sign in 2 / 2ⁿ of the samples. Looks before it would stop
hardly any loss: with five losses and at most 40 seeds, |t| of five seeds would have to reach 17."""
MOST_SEEDS = 500
SPENDING = 2
"""The power of n / max_seeds in the spent error."""
_STEPS = 1000
"""Bounds are rounded up to one over this, so that they are the same on every machine."""
Word = Literal["better", "worse", "equivalent"]


@dataclass(frozen=True)
class Rule:
    """A loss is better or worse as soon as its repeated interval excludes zero, and equivalent as soon as that lies
    inside ±margin.

    Attributes:
        margin: differences below it count as none, in the unit of the differences.
        max_seeds: the number of seeds after which a loss stays undecided.
        losses: how many are compared with the baseline.
        level: the probability that any interval of any of them misses its true mean.

    Raises:
        UserError: for values that make no rule.
    """

    margin: float
    max_seeds: int
    losses: int
    level: float = 0.05

    def __post_init__(self) -> None:
        if not (self.margin > 0 and math.isfinite(self.margin)):
            raise UserError(
                f"the margin below which a difference counts as none is {self.margin:g}: choose one above 0"
            )
        if not FIRST_LOOK <= self.max_seeds <= MOST_SEEDS:
            raise UserError(
                f"max_seeds={self.max_seeds}: choose {FIRST_LOOK} to {MOST_SEEDS}, because the first look is at "
                f"{FIRST_LOOK} seeds"
            )
        if self.losses < 1:
            raise UserError("seeds are added until losses are decided, and there is none beside the baseline")
        if not 0 < self.level < 1:
            raise UserError(f"an error level of {self.level:g} is no probability between 0 and 1")

    def bounds(self) -> Array:
        """[max_seeds], the critical t after 1, 2, … seeds; infinite before the first look."""
        return _bounds(self.max_seeds, self.level / self.losses)

    def intervals(self, differences: Sequence[float] | Array) -> Array:
        """[…, n, 2], the repeated intervals after 1, 2, … of the differences [..., n], in the order of their seeds.

        Raises:
            UserError: for more differences than max_seeds, for which there are no bounds.
        """
        values = np.asarray(differences, dtype=np.float64)
        seeds = values.shape[-1]
        if seeds > self.max_seeds:
            raise UserError(f"{seeds} seeds, where the rule ends at max_seeds={self.max_seeds}")
        n = np.arange(1, seeds + 1)
        first = values[..., :1]
        mean = np.cumsum(values - first, axis=-1) / n
        square = np.maximum(np.cumsum((values - first) ** 2, axis=-1) - n * mean**2, 0.0)
        half = np.full(values.shape, math.inf)
        n, looked = n[FIRST_LOOK - 1 :], slice(FIRST_LOOK - 1, seeds)
        half[..., looked] = self.bounds()[looked] * np.sqrt(square[..., looked] / (n - 1) / n)
        return np.stack([first + mean - half, first + mean + half], axis=-1)

    def interval(self, differences: Sequence[float] | Array) -> tuple[float, float]:
        """The repeated interval of the mean after all these differences; infinite before the first look."""
        if not len(differences):
            return -math.inf, math.inf
        low, high = self.intervals(differences)[-1]
        return float(low), float(high)

    def decided_at(self, differences: Sequence[float] | Array) -> tuple[int, Word] | None:
        """The number of seeds of the first look that decided, and how; None: none has.

        Later seeds change nothing: all intervals hold together, so that the first decision keeps its error.

        Args:
            differences: negative is better.
        """
        found = self.intervals(differences)
        decided = self.decides(found)
        if not decided.any():
            return None
        at = int(np.argmax(decided))
        low, high = found[at]
        return at + 1, "better" if high < 0 else "worse" if low > 0 else "equivalent"

    def decides(self, intervals: Array) -> NDArray[np.bool_]:
        """[…], whether each of these intervals [..., 2] excludes zero or lies inside ±margin."""
        low, high = intervals[..., 0], intervals[..., 1]
        decided: NDArray[np.bool_] = (high < 0) | (low > 0) | (-self.margin < low) & (high < self.margin)
        return decided

    def verdict(self, differences: Sequence[float] | Array) -> Word | None:
        """The verdict of the first look that decided; None: none has. Negative differences are better."""
        decided = self.decided_at(differences)
        return None if decided is None else decided[1]


@lru_cache(maxsize=64)
def _bounds(max_seeds: int, level: float) -> Array:
    found = np.full(max_seeds, math.inf)
    path, spent = Path(FIRST_LOOK), 0.0
    for n in range(FIRST_LOOK, max_seeds + 1):
        if n > FIRST_LOOK:
            path = path.step(float(found[n - 2]))
        spend = level * (n / max_seeds) ** SPENDING
        found[n - 1] = math.ceil(path.bound_for(spend - spent) * _STEPS) / _STEPS
        spent = spend
    found.flags.writeable = False
    return found
