"""The rows of the table: each loss beside the baseline, on one yardstick."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

from losslab.comparison.groups import Contender, Setting
from losslab.comparison.metrics import higher_is_better
from losslab.comparison.statistics import LEVEL, Paired, Verdict, holm, iqm, judge, paired, seeds_needed
from losslab.comparison.tuning import describe_choice

NO_PAIR = "no seed in common with the baseline"
OTHER_START = "no pair with the baseline: every start differs"
NO_BASELINE = "no baseline of this setting"
NO_RESULT = "no result"


@dataclass(frozen=True)
class Row:
    """A loss on one yardstick. Empty is NaN."""

    label: str
    setting: str
    """What it was tuned to; nothing where there was no choice."""
    n: int
    """Seeds with a value."""
    lost: str
    """`1 diverged, 2 failed` of the chosen setting (without any result: of all); or nothing."""
    values: dict[int, float]
    """Seed → value."""
    differences: dict[int, float]
    """Seed → value less the baseline's."""
    mean: float
    std: float
    """Over seeds, with n − 1."""
    median: float
    iqm: float
    is_baseline: bool
    paired: Paired | None
    """Against the baseline; None for the baseline itself, and without a shared seed."""
    p_holm: float
    """Of the paired t test, adjusted over the table."""
    p_equivalence: float
    """Of TOST, adjusted over the table."""
    verdict: Verdict
    more_seeds: int | None
    """About how many more would settle what is undecided; None where nothing is, or too many to tell."""


def make_rows(
    contenders: Sequence[Contender], baselines: dict[Setting, Contender], *, metric: str, margin: float | None
) -> list[Row]:
    """Rows in the order of their means, best first, those without a value last."""
    values = {id(c): values_of(c, metric) for c in contenders}
    differences: dict[int, dict[int, float]] = {}
    for c in contenders:
        reference = baselines.get(c.stratum)
        if reference is None or reference is c:
            continue
        mine, other = values[id(c)], values[id(reference)]
        seeds = [seed for seed in sorted(mine.keys() & other.keys()) if not unequal_start(c, reference, seed)]
        if seeds:
            differences[id(c)] = {seed: mine[seed] - other[seed] for seed in seeds}
    results = {
        key: paired(list(shared.values()), margin=margin, comparisons=len(differences))
        for key, shared in differences.items()
    }
    p_holm = dict(zip(results, holm([r.p_t for r in results.values()]), strict=True))
    p_same = dict(zip(results, holm([r.p_equivalence for r in results.values()]), strict=True))
    higher = higher_is_better(metric)
    rows = []
    for c in contenders:
        own = list(values[id(c)].values())
        result = results.get(id(c))
        is_baseline = baselines.get(c.stratum) is c
        if result is not None:
            lost = "; ".join(filter(None, [_lost(c), _lost(baselines[c.stratum])]))
            verdict = judge(result, p_holm[id(c)], p_same[id(c)], higher_is_better=higher, margin=margin, lost=lost)
        else:
            reference = baselines.get(c.stratum)
            in_common = reference is not None and values[id(c)].keys() & values[id(reference)].keys()
            apart = NO_BASELINE if reference is None else OTHER_START if in_common else NO_PAIR
            text = "baseline" if is_baseline else apart if own else NO_RESULT
            verdict = Verdict(text, text)
        more = None
        # Where only the sign-flip test holds a word back, no t test tells how many seeds are missing.
        if result is not None and verdict.word == "undecided" and not p_holm[id(c)] < LEVEL:
            needed = seeds_needed(result, comparisons=len(results), margin=margin)
            more = None if needed is None else max(needed - result.n, 1)
        counts = sum((group.counts for group in ([c.chosen] if c.runs else c.groups)), Counter[str]())
        rows.append(
            Row(
                label=c.label,
                setting=describe_choice(c),
                n=len(own),
                lost=", ".join(f"{counts[status]} {status}" for status in sorted(counts)),
                values=values[id(c)],
                differences=differences.get(id(c), {}),
                mean=mean(own) if own else math.nan,
                std=stdev(own) if len(own) > 1 else math.nan,
                median=median(own) if own else math.nan,
                iqm=iqm(own) if own else math.nan,
                is_baseline=is_baseline,
                paired=result,
                p_holm=p_holm.get(id(c), math.nan),
                p_equivalence=p_same.get(id(c), math.nan),
                verdict=verdict,
                more_seeds=more,
            )
        )
    return sorted(rows, key=lambda row: math.inf if math.isnan(row.mean) else -row.mean if higher else row.mean)


def unequal_start(contender: Contender, reference: Contender, seed: int) -> list[str]:
    """What differs between the starts of two runs of a seed, which are then no pair: backbone_init, batches."""
    own, other = contender.runs[seed].record.hashes, reference.runs[seed].record.hashes
    return [key for key in ("backbone_init", "batches") if own.get(key) != other.get(key)]


def _lost(contender: Contender) -> str:
    """`focal 2 diverged`: runs of the chosen setting that came to an end without a result."""
    counts = contender.chosen.counts
    told = [f"{counts[status]} {status}" for status in ("diverged", "failed") if counts[status]]
    return f"{contender.label} {', '.join(told)}" if told else ""


def values_of(contender: Contender, metric: str) -> dict[int, float]:
    """Seed → the yardstick at the best checkpoint of the chosen setting."""
    found = {seed: run.best(metric) for seed, run in sorted(contender.runs.items())}
    return {seed: value for seed, value in found.items() if value is not None}
