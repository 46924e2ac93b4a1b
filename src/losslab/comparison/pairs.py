"""Every loss beside every other one: a family of its own, whose intervals are wider than those against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean

from losslab.comparison.growing import Growing
from losslab.comparison.metrics import Declarations
from losslab.comparison.rows import compare_together, told_lost, values_of
from losslab.comparison.runs.contenders import Contender
from losslab.comparison.statistics import Paired
from losslab.comparison.verdicts import Verdict, judge


@dataclass(frozen=True)
class Pair:
    """Two losses; what is said is said of the first."""

    first: str
    second: str
    paired: Paired
    """Statistics of the first's values less the second's."""
    verdict: Verdict


def make_pairs(
    contenders: Sequence[Contender],
    *,
    metric: str,
    margin: float | None,
    declared: Declarations,
    growing: Growing | None = None,
) -> list[Pair]:
    """All pairs that answer one question and have a seed in common, by the order of their means: in each the better one
    comes first. Where losses stopped at unequal numbers of seeds, the means are those of the seeds that all have."""
    higher = declared.higher_is_better(metric)
    values = {id(c): own for c in contenders if (own := values_of(c, metric))}
    shared = set.intersection(*map(set, values.values())) if growing is not None and values else set()
    means = {key: mean(own[seed] for seed in shared or own) for key, own in values.items()}
    known = sorted((c for c in contenders if id(c) in means), key=lambda c: means[id(c)], reverse=higher)
    asked = {
        (first.label, second.label): (first, second)
        for first, second in combinations(known, 2)
        if first.stratum == second.stratum
    }
    _, results = compare_together(asked, metric=metric, margin=margin, growing=growing)
    found = []
    for key, result in results.items():
        lost = told_lost(*asked[key])
        verdict = judge(result, higher_is_better=higher, margin=margin, lost=lost)
        found.append(Pair(*key, result, verdict))
    return found
