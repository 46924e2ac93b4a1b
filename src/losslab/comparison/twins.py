"""Chaos: how far runs end from one another that began alike but for a millionth of their weights (`seeds.twin`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from losslab.comparison.claim_cost import Deviation
from losslab.comparison.runs.contenders import Contender
from losslab.comparison.runs.run import Run

_ALIKE = ("batches", "code")
"""Hashes that twins have in common."""


@dataclass(frozen=True)
class Chaos:
    """Twins of one loss at its chosen setting, on one metric."""

    label: str
    twins: int
    """Runs that are twins of another."""
    seeds: int
    """Seeds that have twins."""
    rms: float
    """Root mean square of the differences between two twins of a seed."""
    low: float
    high: float
    """Its 95% interval, by the chi-square distribution with `twins` degrees of freedom."""

    def share_of(self, std: float) -> float:
        """The share of a variance of paired differences that chaos alone would make. Two runs of a pair go apart as two
        twins do, or further."""
        return math.inf if std == 0 else (self.rms / std) ** 2

    def error(self, pairs: int) -> float:
        """The standard error that chaos alone gives the mean of so many paired differences."""
        return self.rms / math.sqrt(pairs)


def chaos_of(contender: Contender, metric: str) -> Chaos | None:
    """None where no run of the chosen setting has a twin with a value."""
    families = []
    for _, run in sorted(contender.runs.items()):
        values = [value for own in (run, *_twins_of(contender, run)) if (value := own.value(metric)) is not None]
        if len(values) > 1 and run.value(metric) is not None:
            families.append(values)
    if not families:
        return None
    rms, freedom = rms_of(families)
    return Chaos(contender.label, freedom, len(families), rms, *Deviation(rms, freedom).interval())


def rms_of(families: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The root mean square of the difference between two members of a family, and its degrees of freedom.

    Args:
        families: values of a run and of its twins, of each seed; two or more.
    """
    freedom = sum(len(own) - 1 for own in families)
    squares = sum((value - sum(own) / len(own)) ** 2 for own in families for value in own)
    return math.sqrt(2 * squares / freedom), freedom  # two members differ by √2 of their standard deviation


def twin_caveats(contenders: Sequence[Contender]) -> list[str]:
    """Twins without the run whose twins they are, and those that did not begin as it did."""
    found = []
    for contender in contenders:
        done = [run for run in contender.chosen.twins if run.record.status == "completed"]
        alone = sorted({str(run.seed) for run in done if run.seed not in contender.runs})
        if alone:
            found.append(
                f"{contender.label}: twins of seed {', '.join(alone)} stand alone, and say nothing of chaos: train the "
                "run without seeds.twin, too"
            )
        unlike = [run for run in done if (own := contender.runs.get(run.seed)) and not _are_alike(run, own, contender)]
        if unlike:
            found.append(
                f"{contender.label}: twins with other batches or code than the run whose twins they are are left out "
                f"(seed {', '.join(sorted({str(run.seed) for run in unlike}))})"
            )
    return found


def _twins_of(contender: Contender, run: Run) -> list[Run]:
    """The newest completed run of each of its twins."""
    newest: dict[int | None, Run] = {}
    for twin in contender.chosen.twins:
        if twin.seed != run.seed or twin.record.status != "completed" or not _are_alike(twin, run, contender):
            continue
        known = newest.get(twin.twin)
        if known is None or known.record.timing.get("started", "") <= twin.record.timing.get("started", ""):
            newest[twin.twin] = twin
    return list(newest.values())


def _are_alike(twin: Run, run: Run, contender: Contender) -> bool:
    keys = _ALIKE[:1] if contender.across_code else _ALIKE
    return all(twin.record.hashes.get(key) == run.record.hashes.get(key) for key in keys)
