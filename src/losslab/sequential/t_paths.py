"""Crossing probabilities of the t statistics T₂, T₃, … of one growing sample, each with its own standard deviation.

Without a true mean, T_n is independent of Σx², which is complete and sufficient for the variance (Basu 1955). So the
path is a Markov chain of one variable, whatever the variance, and no path needs to be drawn. In reverse,

    T_n = √((n − 1) / (n + 1)) · (T_{n+1} − sin ψ) / cos ψ,    ψ of density ∝ cos^{n−2} ψ on (−π/2, π/2),

independent of T_{n+1}: the (n + 1)th difference is one coordinate of a point that is uniform on a sphere, once the sum
is given. Let C_n(t) be the probability that no earlier bound was crossed, given T_n = t. Then C_{n+1}(t) is the mean
over ψ of C_n(T_n) where |T_n| is below the bound of n, which is one interval of ψ. The probability of a first crossing
at n is the integral of C_n times the density of t with n − 1 degrees of freedom, over |t| at or above the bound of n.

Armitage, McPherson and Rowe (1969, doi 10.2307/2343787) computed such errors of repeated tests for a known variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.chebyshev import chebinterpolate, chebval
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy import optimize, special

Array = NDArray[np.float64]
FIRST = 2
"""The smallest sample that has a t."""
_DEGREE = 47
"""Degree of the polynomials for C_n; 32 instead of 47 changes no bound by more than 1e-8 of itself."""
_NOTHING = 1e-20
"""A density of ψ below this share of its largest counts as none."""
_POINTS, _WEIGHTS = leggauss(48)


@dataclass(frozen=True)
class Path:
    """The t statistic after n differences, of paths that have crossed no bound before.

    Attributes:
        n: the number of differences.
        top: the largest |T_n| that such a path can have; infinite before the first bound.
        coefficients: of C_n, in Chebyshev polynomials of angle · 4 / π − 1, where |t| = top · sin(angle).
    """

    n: int
    top: float = math.inf
    coefficients: Array | None = None

    def not_crossed(self, t: Array) -> Array:
        """C_n(t) for |t| up to `top`."""
        if self.coefficients is None:
            return np.ones_like(t)
        return self._at(np.arcsin(np.minimum(np.abs(t) / self.top, 1)))

    def _at(self, angle: Array) -> Array:
        assert self.coefficients is not None
        return np.asarray(chebval(angle * (4 / math.pi) - 1, self.coefficients), dtype=np.float64)

    def crossing(self, bound: float) -> float:
        """The probability that |T_n| is the first to reach its bound."""
        if self.coefficients is None:
            return 2 * float(special.stdtr(self.n - 1, -bound))
        return 0.0 if bound >= self.top else self._beyond(math.asin(bound / self.top))

    def _beyond(self, first: float) -> float:
        half = (math.pi / 2 - first) / 2
        angle = first + half * (1 + _POINTS)
        density = _density(self.n - 1, self.top * np.sin(angle)) * self.top * np.cos(angle)
        return 2 * half * float(np.sum(_WEIGHTS * density * self._at(angle)))

    def bound_for(self, probability: float) -> float:
        """The bound that is first reached with this probability, which is above 0."""
        if self.coefficients is None:
            return float(-special.stdtrit(self.n - 1, probability / 2))

        def excess(angle: float) -> float:
            return math.log(max(self._beyond(angle), 1e-300) / probability)

        return self.top * math.sin(optimize.brentq(excess, 0.0, math.pi / 2 - 1e-9, xtol=1e-13))

    def step(self, bound: float) -> Path:
        """The path after one more difference, where this one has not reached `bound`; infinite: where it was not
        looked at."""
        n, bound = self.n, min(bound, self.top)
        if math.isinf(bound):
            return Path(n + 1)
        reach = bound * math.sqrt((n + 1) / (n - 1))
        top, side = math.hypot(1.0, reach), math.atan(reach)
        constant = math.exp(special.gammaln(n / 2) - special.gammaln((n - 1) / 2)) / math.sqrt(math.pi)

        widest = math.acos(_NOTHING ** (1 / (n - 2))) if n > 2 else math.pi / 2

        def mean(place: Array) -> Array:
            angle = (place + 1) * (math.pi / 4)
            low, high = angle - side, np.minimum(angle + side, math.pi - angle - side)
            low, high = np.clip(low, -widest, widest), np.clip(high, -widest, widest)
            half = (high - low) / 2
            psi = low[:, None] + half[:, None] * (1 + _POINTS)
            before = math.sqrt((n - 1) / (n + 1)) * (top * np.sin(angle)[:, None] - np.sin(psi)) / np.cos(psi)
            weights = _WEIGHTS * constant * np.cos(psi) ** (n - 2)
            values: Array = half * np.sum(weights * self.not_crossed(before), axis=1)
            return values

        return Path(n + 1, top, chebinterpolate(mean, _DEGREE))  # type: ignore[arg-type]


def _density(df: int, t: Array) -> Array:
    """The density of Student's t."""
    constant = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - math.log(df * math.pi) / 2
    found: Array = np.exp(constant - (df + 1) / 2 * np.log1p(t * t / df))
    return found
