"""Twins in sentences: how much of what pairs show is chaos."""

from __future__ import annotations

from losslab.comparison.analysis import Comparison
from losslab.comparison.rows import Row
from losslab.comparison.twins import Chaos
from losslab.numbers import number

_SMALL = 0.0005


def chaos_told(c: Comparison) -> list[str]:
    """A sentence for each loss with twins, beside the deviations of the paired differences that it has a part in."""
    strata = {contender.label: contender.stratum for contender in c.contenders}
    baselines = {stratum: contender.label for stratum, contender in c.baselines.items()}
    found = []
    for chaos in c.chaos:
        stratum = strata[chaos.label]
        is_baseline = baselines.get(stratum) == chaos.label
        rows = [row for row in c.rows if row.label == chaos.label or (is_baseline and strata[row.label] == stratum)]
        found.append(_apart(c, chaos) + _beside(chaos, rows))
    return found


def _apart(c: Comparison, chaos: Chaos) -> str:
    return (
        f"chaos: twins of {chaos.label} end {_size(chaos.rms)} apart in {c.metric}{c.when} (rms; 95% "
        f"{_size(chaos.low)}–{_size(chaos.high)}, {_count(chaos.twins, 'twin')} of {_count(chaos.seeds, 'seed')})"
    )


def _beside(chaos: Chaos, rows: list[Row]) -> str:
    paired = [(row.label, row.paired) for row in rows if row.paired is not None and row.paired.n > 1]
    if not paired:
        return "."
    listed = ", ".join(f"{label} {_size(result.std)}{_share(chaos.share_of(result.std))}" for label, result in paired)
    pairs = sorted({result.n for _, result in paired})
    floors = " or ".join(f"{_size(chaos.error(n))} ({n} pairs)" for n in pairs)
    return (
        f"; paired differences have a standard deviation of: {listed}. Chaos alone gives their mean a standard error "
        f"of {floors}: a mean below twice that may be no effect of the loss."
    )


def _share(share: float) -> str:
    return " (chaos makes all of it)" if share >= 1 else f" (chaos makes {share:.0%} of its variance)"


def _size(value: float) -> str:
    """Four decimals, or two digits of a distance that these would make a zero."""
    return number(value) if value >= _SMALL or value == 0 else f"{value:.2g}"


def _count(count: int, one: str) -> str:
    return f"{count} {one}{'s' * (count != 1)}"
