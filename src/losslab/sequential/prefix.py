"""Standing of a loss whose seeds are added one by one: judged on the first seeds that have all ended, and on nothing
else, so that neither the order in which runs end nor a kill changes a verdict. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from losslab.pairing import CODE, RESOLUTION, unequal_start
from losslab.records import DONE, Record
from losslab.sequential.rule import Rule

LOST, UNDECIDED = "lost", "undecided"
LOST_AFTER = 3
"""Seeds without a value, of the loss or of the baseline, after which a loss gets no further ones."""


@dataclass(frozen=True)
class Ended:
    """A run with a result, which may have no value."""

    value: float | None
    why: str
    """The reason why there is no value: `diverged`."""
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, record: Record, metric: str) -> Ended | None:
        """The result that a record holds; None where its run has none yet."""
        if record.status not in DONE:
            return None
        value = record.metrics.get("best", {}).get(metric) if record.status == "completed" else None
        why = f"without {metric}" if record.status == "completed" else record.status
        return cls(value, "" if value is not None else why, record.hashes)


@dataclass(frozen=True)
class Standing:
    """One loss beside the baseline after some seeds."""

    seeds: int
    """The number of first seeds that have all ended, in both."""
    differences: tuple[float, ...] = ()
    """Values less the baseline's, of the seeds that are a pair."""
    left_out: tuple[tuple[int, str], ...] = ()
    """Seeds that are no pair, and why."""
    verdict: str = ""
    """better, worse or equivalent; `lost` where too many seeds have no value, `undecided` at the end of the budget;
    empty while seeds are added."""
    low: float = -math.inf
    high: float = math.inf
    """The repeated interval of the mean difference."""

    @property
    def mean(self) -> float:
        return sum(self.differences) / len(self.differences) if self.differences else math.nan


def standing(
    rule: Rule, baseline: Mapping[int, Ended], own: Mapping[int, Ended], *, first_seed: int, higher_is_better: bool
) -> Standing:
    """The last of `standings`; one of no seed where there is none."""
    found = standings(rule, baseline, own, first_seed=first_seed, higher_is_better=higher_is_better)
    return [Standing(0), *found][-1]


def standings(
    rule: Rule, baseline: Mapping[int, Ended], own: Mapping[int, Ended], *, first_seed: int, higher_is_better: bool
) -> Iterator[Standing]:
    """A standing after each seed in turn, up to the verdict, or to the first seed that has not ended.

    A seed whose runs are no pair (one diverged, has no such value, or began otherwise) is left out: the rule looks at
    the pairs that there are, as often as one is added.

    Args:
        baseline, own: ends by seed.
    """
    differences: list[float] = []
    left_out: list[tuple[int, str]] = []
    largest, lost = 0.0, 0
    for count in range(1, rule.max_seeds + 1):
        seed = first_seed + count - 1
        if seed not in baseline or seed not in own:
            return
        if why := _why_no_pair(baseline[seed], own[seed]):
            left_out.append((seed, why))
            lost += own[seed].value is None or baseline[seed].value is None
        else:
            value, reference = own[seed].value, baseline[seed].value
            assert value is not None and reference is not None
            differences.append(value - reference)
            largest = max(largest, abs(value), abs(reference))
        verdict, low, high = judge(rule, differences, largest, higher_is_better=higher_is_better)
        if not verdict and lost >= LOST_AFTER:
            verdict = LOST
        if not verdict and count == rule.max_seeds:
            verdict = UNDECIDED
        found = Standing(count, tuple(differences), tuple(left_out), verdict, low, high)
        yield found
        if verdict:
            return


def judge(rule: Rule, differences: list[float], largest: float, *, higher_is_better: bool) -> tuple[str, float, float]:
    """Verdict after the last of the differences, and their repeated interval, for either side of the metric.

    Args:
        largest: the largest absolute value of which a difference was taken, which gives their rounding. Differences
            that vary by no more have no spread: they may show that nothing differs, and never a difference.
    """
    sign = -1.0 if higher_is_better else 1.0
    signed = sign * np.asarray(differences, dtype=np.float64)
    low, high = rule.interval(signed)
    ends = (low, high) if sign > 0 else (-high, -low)
    if not math.isfinite(low):
        return "", *ends
    if float(np.ptp(signed)) <= RESOLUTION * largest:
        return "equivalent" if abs(float(signed.mean())) < rule.margin else "", *ends
    decided = rule.decided_at(signed)
    return decided[1] if decided is not None and decided[0] == len(signed) else "", *ends


def _why_no_pair(baseline: Ended, own: Ended) -> str:
    if own.value is None:
        return own.why
    if baseline.value is None:
        return f"the baseline {baseline.why}"
    differing = unequal_start(own.hashes, baseline.hashes)
    if not differing:
        return ""
    return "trained by other code than the baseline" if differing == [CODE] else "begun otherwise than the baseline"
