"""The error of a plain test that was looked at more than once, while its sample grew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from scipy import special

from losslab.sequential.t_paths import FIRST, Path


def error_of_looks(looks: Sequence[int], *, level: float = 0.05) -> float:
    """The probability that a two-sided paired t test of this level rejects at one of these looks or more, where there
    is no difference: what a p of `level` stands for, if each look could have ended the experiment.

    Args:
        looks: increasing numbers of pairs, each at least 2.
    """
    if not looks or min(looks) < FIRST or any(b <= a for a, b in pairwise(looks)):
        raise ValueError(f"looks at {list(looks)} pairs: they increase from {FIRST} or more")
    path, error = Path(looks[0]), 0.0
    for n in range(looks[0], looks[-1] + 1):
        bound = float(-special.stdtrit(n - 1, level / 2)) if n in looks else float("inf")
        if n in looks:
            error += path.crossing(bound)
        path = path.step(bound)
    return error
