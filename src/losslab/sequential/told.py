"""Sentences on a loss whose seeds are added one by one. No torch here."""

from __future__ import annotations

import math
from collections import Counter

from losslab.numbers import interval, number
from losslab.sequential.ledger import Terms
from losslab.sequential.prefix import LOST, UNDECIDED, Standing
from losslab.sequential.rule import FIRST_LOOK


def told_terms(terms: Terms) -> str:
    """A sentence on the rule, for the start."""
    count = len(terms.compared)
    losses = f"{count} losses are" if count > 1 else f"{terms.compared[0]} is"
    return (
        f"{losses} compared with {terms.baseline}; seeds are added until each is better, worse or equivalent (within "
        f"±{terms.margin:g}) in {terms.metric}: the first look is at {FIRST_LOOK} seeds, the last at "
        f"{terms.max_seeds}, and the error of the whole table is {terms.level:.0%} whenever it stops"
    )


def told_verdict(one: Standing, baseline: str) -> str:
    """`worse than cross_entropy after 8 seeds`; of a loss without a verdict `undecided after 5 seeds`."""
    seeds = f"{one.seeds} seed{'s' * (one.seeds != 1)}"
    if one.verdict == LOST:
        return f"lost: {_left_out(one)} of {seeds}"
    words = {"better": f"better than {baseline}", "worse": f"worse than {baseline}"}
    words |= {"equivalent": f"equivalent to {baseline}"}
    return f"{words.get(one.verdict, UNDECIDED)} after {seeds}"


def told_standing(label: str, one: Standing, terms: Terms) -> str:
    """`square: worse than cross_entropy after 8 seeds: +0.0412 [+0.0150, +0.0674]`."""
    text = f"{label}: {told_verdict(one, terms.baseline)}"
    if one.differences:
        text += f": {number(one.mean, sign=True)}"
    if math.isfinite(one.low):
        text += f" {interval(one.low, one.high, terms.margin)}"
        small = one.verdict in ("better", "worse") and -terms.margin < one.low and one.high < terms.margin
        text += f", but within ±{terms.margin:g}" if small else ""
    elif not one.verdict:
        text += f" (first look at {FIRST_LOOK} seeds)"
    if one.left_out and one.verdict != LOST:
        text += f"; without {_left_out(one)}"
    return text


def _left_out(one: Standing) -> str:
    """`2 diverged, 1 the baseline diverged`."""
    counts = Counter(why for _, why in one.left_out)
    return ", ".join(f"{counts[why]} {why}" for why in sorted(counts))
