"""The rows of the table: each loss beside the baseline, on one metric."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median, stdev
from typing import TypeVar

from losslab import pairing
from losslab.comparison.claim_cost import Deviation, Needed, deviations_of, seeds_needed
from losslab.comparison.growing import Growing
from losslab.comparison.metrics import Declarations
from losslab.comparison.runs.contenders import Contender, Setting
from losslab.comparison.simultaneous import by_rule, family_of
from losslab.comparison.statistics import Paired, iqm, paired
from losslab.comparison.tuning import describe_choice
from losslab.comparison.verdicts import Verdict, judge
from losslab.pairing import CODE, OF_START, RESOLUTION

Key = TypeVar("Key", bound=Hashable)
NO_PAIR = "no seed in common with the baseline"
OTHER_START = "no pair with the baseline: every start or code differs"
NO_BASELINE = "no baseline of this setting"
NO_RESULT = "no result"
ONE_START = "no claim: different seeds started from the same weights"
_STREAMS = ("backbone_init", "head_init", "data_order")
"""The streams that the hashes of a start are drawn from."""
_OF_FILES = "model."
"""Begins the names of hashes of files out of which a model takes its weights."""


@dataclass(frozen=True)
class Row:
    """A loss on one metric. Empty is NaN."""

    label: str
    setting: str
    """The setting that was chosen; empty where there was no choice."""
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
    verdict: Verdict
    deviation: Deviation | None
    """The deviation of the differences, pooled over the losses of the table where theirs agree; None without spread."""
    needed: Needed | None
    """Seeds that would settle what is undecided; None where nothing is, without spread, and where a sweep adds seeds by
    itself."""

    def more(self, seeds: int | None) -> int | None:
        """How many of these there are not yet, at least one; None for None."""
        return None if seeds is None else max(seeds - (0 if self.paired is None else self.paired.n), 1)


def make_rows(
    contenders: Sequence[Contender],
    baselines: dict[Setting, Contender],
    *,
    metric: str,
    margin: float | None,
    declared: Declarations,
    growing: Growing | None = None,
) -> list[Row]:
    """Rows in the order of their means, best first, those without a value last. Where a sweep added seeds until losses
    were decided, these have unequal numbers of them, and the order is that of the differences to the baseline."""
    values = {id(c): values_of(c, metric) for c in contenders}
    pairs = {
        id(c): (c, reference)
        for c in contenders
        if (reference := baselines.get(c.stratum)) is not None and reference is not c
    }
    differences, results = compare_together(pairs, metric=metric, margin=margin, growing=growing)
    higher = declared.higher_is_better(metric)
    deviations = deviations_of({key: differences[key] for key, result in results.items() if result.spread})
    rows = []
    for c in contenders:
        own = list(values[id(c)].values())
        result = results.get(id(c))
        is_baseline = baselines.get(c.stratum) is c
        if result is not None:
            lost = told_lost(c, baselines[c.stratum])
            verdict = judge(result, higher_is_better=higher, margin=margin, lost=lost)
            if growing is not None and metric == growing.terms.metric and margin == growing.terms.margin:
                verdict = _of_standing(verdict, growing, c, baselines[c.stratum], differences[id(c)])
        else:
            reference = baselines.get(c.stratum)
            in_common = reference is not None and values[id(c)].keys() & values[id(reference)].keys()
            apart = NO_BASELINE if reference is None else _why_none(c, reference) if in_common else NO_PAIR
            text = "baseline" if is_baseline else apart if own else NO_RESULT
            verdict = Verdict(text, text)
        deviation, needed = deviations.get(id(c)), None
        if result is not None and deviation is not None and verdict.word == "undecided" and growing is None:
            needed = seeds_needed(result, deviation, margin=margin)
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
                verdict=verdict,
                deviation=deviation,
                needed=needed,
            )
        )

    def place(row: Row) -> float:
        value = row.mean
        if growing is not None and not math.isnan(value):
            value = 0.0 if row.is_baseline else math.nan if row.paired is None else row.paired.mean
        return math.inf if math.isnan(value) else -value if higher else value

    return sorted(rows, key=place)


def _of_standing(
    verdict: Verdict, growing: Growing, contender: Contender, reference: Contender, differences: Mapping[int, float]
) -> Verdict:
    """The sweep's own verdict, where it judged these very differences."""
    standing = growing.standing_of(contender, reference)
    if standing is None or standing.differences != tuple(differences.values()):
        return verdict
    if verdict.word == "undecided" and standing.verdict == "equivalent":  # differences without spread
        verdict = Verdict("equivalent", verdict.text.replace("undecided", "equivalent", 1), equivalent=True)
    told = growing.told(standing)
    text = f"{verdict.text[:-1]}; {told})" if verdict.text.endswith(")") else f"{verdict.text} ({told})"
    return replace(verdict, text=text)


def compare_together(
    pairs: Mapping[Key, tuple[Contender, Contender]],
    *,
    metric: str,
    margin: float | None,
    growing: Growing | None = None,
) -> tuple[dict[Key, dict[int, float]], dict[Key, Paired]]:
    """Compare two contenders at a time, all these pairs of them as one family.

    Returns:
        Seed → the first's value less the second's, where both started alike, and the statistics of these differences;
        of each pair that has a seed in common.
    """
    differences, resolutions = {}, {}
    for key, (first, second) in pairs.items():
        own, other = values_of(first, metric), values_of(second, metric)
        seeds = [seed for seed in pairs_of(first, second) if seed in own and seed in other]
        seeds = seeds if growing is None else growing.counted(seeds, first, second)
        if seeds:
            differences[key] = {seed: own[seed] - other[seed] for seed in seeds}
            resolutions[key] = RESOLUTION * max(abs(values[seed]) for values in (own, other) for seed in seeds)
    count = len(differences)
    family = family_of(list(differences.values())) if growing is None else by_rule(growing.rule_for(count))
    results = {
        key: paired(list(shared.values()), family=family, margin=margin, resolution=resolutions[key])
        for key, shared in differences.items()
    }
    return differences, results


def told_lost(*contenders: Contender) -> str:
    """`focal 2 diverged; square 1 failed`: which runs of these came to an end without a result; or nothing."""
    return "; ".join(filter(None, map(_lost, contenders)))


def pairs_of(contender: Contender, reference: Contender) -> list[int]:
    """The seeds whose two runs are a pair: they started alike, and as those of no other seed did."""
    again = {seed for c in (contender, reference) for seeds in shared_starts(c) for seed in seeds}
    return [
        seed
        for seed in sorted(contender.runs.keys() & reference.runs.keys())
        if seed not in again and not unequal_start(contender, reference, seed)
    ]


def unequal_start(contender: Contender, reference: Contender, seed: int) -> list[str]:
    """Differences between the two runs of a seed, which are then no pair (`pairing.unequal_start`)."""
    found = pairing.unequal_start(contender.runs[seed].record.hashes, reference.runs[seed].record.hashes)
    return [key for key in found if key != CODE] if contender.across_code else found


def shared_starts(contender: Contender) -> list[list[int]]:
    """Groups of seeds whose runs have the same initial weights: nothing that the seeds should vary was varied. Runs
    that share the seed of that stream are meant to have them (`seeds.data_order=1,2`). Weights that a model takes out
    of files are meant to be the same: those runs differ by their projection and batches."""
    by_hash: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    drawn: dict[tuple[str | None, ...], set[tuple[int, ...]]] = defaultdict(set)
    for seed, run in sorted(contender.runs.items()):
        hashes, decisive = run.record.hashes, len(OF_START) if takes_weights(run.record.hashes) else 1
        if hashes.get("backbone_init") and not run.settings.get("init_from"):  # which is meant to give all one start
            start = tuple(hashes.get(key) for key in OF_START[:decisive])
            by_hash[start].append(seed)
            drawn[start].add(tuple(run.seed.of(stream) for stream in _STREAMS[:decisive]))
    return [seeds for start, seeds in by_hash.items() if len(drawn[start]) > 1]


def takes_weights(hashes: Mapping[str, str]) -> bool:
    """Whether a record's hashes say that the model took its weights out of files."""
    return any(key.startswith(_OF_FILES) for key in hashes)


def _why_none(contender: Contender, reference: Contender) -> str:
    """The reason why two contenders with seeds in common have no pair."""
    return ONE_START if shared_starts(contender) or shared_starts(reference) else OTHER_START


def _lost(contender: Contender) -> str:
    counts = contender.chosen.counts
    told = [f"{counts[status]} {status}" for status in ("diverged", "failed") if counts[status]]
    return f"{contender.label} {', '.join(told)}" if told else ""


def values_of(contender: Contender, metric: str) -> dict[int, float]:
    """Seed → the metric of the run's weights, at the chosen setting."""
    found = {seed: run.value(metric) for seed, run in sorted(contender.runs.items())}
    return {seed: value for seed, value in found.items() if value is not None}
