"""The cost of a claim in sentences."""

from __future__ import annotations

from losslab.comparison.analysis import Comparison
from losslab.comparison.claim_cost import MOST_SEEDS, ClaimCost
from losslab.comparison.claims import Claim, Claims
from losslab.comparison.rows import Row

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LISTED = 3
"""Deviations that a sentence lists; of more, the smallest and the largest."""


def more_seeds(row: Row) -> str:
    """How many more seeds would settle an undecided row, if the true difference were the one that was seen."""
    assert row.needed is not None
    about, low, high = map(row.more, (row.needed.about, row.needed.low, row.needed.high))
    if low is None or (row.needed.is_enough and about is None):
        return "No thousand seeds would settle it."
    if row.needed.is_enough or low == high:
        return f"About {about} more seed{'s' * (about != 1)} would settle it."
    most = f"over {MOST_SEEDS:,}" if high is None else f"{high:,}"
    return f"Between {low:,} and {most} more seeds would settle it: so few seeds leave their spread that uncertain."


def more_seeds_cell(row: Row) -> str:
    """The same, short."""
    if row.needed is None:
        return "—"
    about, low, high = (
        f"over {MOST_SEEDS}" if seeds is None else str(row.more(seeds))
        for seeds in (row.needed.about, row.needed.low, row.needed.high)
    )
    return about if row.needed.is_enough or low == high else f"{low} to {high}"


def cost_of_claim(c: Comparison) -> list[str]:
    """A sentence on what it takes to find a difference of the margin; nothing where there is no margin or spread."""
    if c.claims is None:
        return []
    what = f"{c.claims.margin:g} {c.declared[c.metric].unit}".rstrip() + f" in {c.metric}{c.when}"
    power = c.claims.of[0].cost.power
    start = f"Cost of a claim: to find a difference of {what} with power {power:g} takes"
    told = [_told(c.claims, claim, c.baseline) for claim in _listed(c.claims)]
    beside = f", with {c.claims.at_once:.0f} runs at once" if c.claims.at_once >= 1.5 else ""
    timed = any(claim.cost.seconds_a_pair is not None for claim in c.claims.of)
    return [f"{start} {'; '.join(told)}{beside if timed else ''}.{_why_open(c.claims)}{_unpaired(c.claims)}"]


def seeds_told(cost: ClaimCost) -> str:
    """`about 38 seeds (21–92)`, or `12 to 1,020 seeds` where the deviation rests on too little."""
    low, high = cost.interval
    if cost.seeds is None:
        return f"{low:,} to {high:,} seeds"
    if low == high:
        return f"{low} seeds"
    return f"about {cost.seeds:,} seeds ({low:,}–{high:,})"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h` or `5.1 days`."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < 3 * _DAY else f"{seconds / _DAY:.1f} days"


def time_told(cost: ClaimCost) -> str:
    """`1.3 h (42 min–3.1 h)`, or `15 min to 22 h`; nothing where no record says how long runs take."""
    low, high = (cost.seconds(seeds) for seeds in cost.interval)
    if low is None or high is None:
        return ""
    least, most, about = duration(low), duration(high), cost.seconds(cost.seeds)
    if least == most:
        return least
    if about is None:
        return f"{least} to {most}"
    return f"{duration(about)} ({least}–{most})"


def _listed(claims: Claims) -> list[Claim]:
    """The claims of different deviations, or the cheapest and the most costly of many."""
    if claims.is_pooled:
        return claims.of[:1]
    by_size = sorted(claims.of, key=lambda claim: claim.cost.deviation.std)
    return by_size if len(by_size) <= _LISTED else [by_size[0], by_size[-1]]


def _told(claims: Claims, claim: Claim, baseline: str) -> str:
    whose = "a loss" if claims.is_pooled and len(claims.of) > 1 else claim.label
    time = time_told(claim.cost)
    return f"{seeds_told(claim.cost)} of {whose} and {baseline}" + (f", {time}" if time else "")


def _why_open(claims: Claims) -> str:
    if claims.is_enough:
        return ""
    pairs = max(claim.pairs for claim in claims.of)
    losses = f"{len(claims.of)} losses" if len(claims.of) > 1 else "one loss"
    return f" {pairs} seeds of {losses} leave it that open."


def _unpaired(claims: Claims) -> str:
    told = list(dict.fromkeys(seeds_told(claim.unpaired) for claim in _listed(claims)))
    return f" Without pairs it would take {' or '.join(told)} of each."
