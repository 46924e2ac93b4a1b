"""The answer in sentences: the question, the verdicts and how far they carry."""

from __future__ import annotations

import math
from dataclasses import replace

from losslab.comparison.analysis import Comparison
from losslab.comparison.output.claim_prose import more_seeds
from losslab.comparison.output.numbers import p_value
from losslab.comparison.rows import Row
from losslab.comparison.runs.run import LAST
from losslab.comparison.searches import searches_of
from losslab.comparison.statistics import Paired
from losslab.comparison.verdicts import NO_SPREAD
from losslab.numbers import interval, number


def difference(result: Paired | None, margin: float | None) -> str:
    """`+0.0512 [+0.0490, +0.0534]`."""
    if result is None:
        return "—"
    return " ".join(filter(None, [number(result.mean, sign=True), interval(result.low, result.high, margin)]))


def name_of(c: Comparison) -> str:
    """The name of the folder or the table."""
    return c.source.resolve().name


def question(c: Comparison) -> str:
    asked = []
    for metric in c.metrics:
        own = c.declared[metric]
        told = ", ".join(part for part in (own.label, own.unit, own.signature) if part and part != metric)
        asked.append(f"the {c.declared.best(metric)} {metric}" + (f" ({told})" if told else ""))
    return f"Which final loss gives {' and '.join(asked)}{c.when}?"


def caption(c: Comparison) -> str:
    """A caption that explains the table's numbers."""
    debug = sorted({key for run in c.runs for key in run.debug})
    noted = f"Debug runs ({', '.join(debug)}), whose numbers are no result: " if debug else ""
    at = f"{noted}{', '.join(c.metrics)} at each run's best checkpoint ({chosen_by(c)})"
    if c.weights == LAST:
        at = f"{noted}{', '.join(c.metrics)} after each run's last step"
    elif all(run.folder is None for run in c.runs):
        at = ", ".join(c.metrics)
    tuned = f"each loss at its best setting by {c.selection}; " if any(len(x.groups) > 1 for x in c.contenders) else ""
    if tuned and (searches := searches_of(c.contenders)) is not None:
        equal = "equal" if searches.are_equal else "unequal"
        tuned = f"each loss at its best setting by {c.selection}, of searches with {equal} budgets: {searches}; "
    costs = "" if c.costs is None else f"; costs: {c.costs.told}"
    kind = "time" if c.costs is not None and c.costs.measured else "FLOPs"
    whole = f" Val at equal {kind}: val/{c.declared.primary} at the cost of {c.baseline}'s whole run"
    timed = f"{whole}{costs}." if c.equal_time else ""
    if c.growing is not None:
        return (
            f"{at}; {tuned}differences to {c.baseline} on shared seeds, which are added until each loss is decided: "
            "repeated 95% intervals, all of which, at every number of seeds, hold the true differences with "
            f"probability 0.95. They have no p.{timed}"
        )
    return (
        f"{at}; {tuned}differences to {c.baseline} on shared seeds, with simultaneous 95% intervals: all of them "
        "together hold the true differences with probability 0.95. Their p is adjusted likewise; that of the exact "
        f"sign-flip test is not.{timed}"
    )


def chosen_by(c: Comparison) -> str:
    """`smallest val/nll_scaled`: what makes a checkpoint the best one."""
    return f"{c.declared.best(c.declared.primary)} val/{c.declared.primary}"


def pairs_caption(c: Comparison) -> str:
    """A caption that explains the numbers of all pairs."""
    told = f"{c.metric}{c.when}: the first loss less the second on shared seeds"
    if (pairs := len(c.pairs or [])) == 1:
        return f"{told}."
    return (
        f"{told}, with intervals that are simultaneous over all {pairs} pairs, and so wider than those against "
        f"{c.baseline} alone."
    )


def sentences(c: Comparison) -> list[str]:
    """The verdict on each loss, with what it means on the other metrics."""
    found = [_sentence(c, row) for row in c.rows if row.paired is not None]
    for metric in c.metrics[1:]:
        own = replace(c, metric=metric, margin=c.margin_of(metric), rows=c.also[metric], also={}, metrics=(metric,))
        found += [f"{metric}: {_sentence(own, row)}" for row in own.rows if row.paired is not None]
    return found


def _sentence(c: Comparison, row: Row) -> str:
    assert row.paired is not None
    result, measure = row.paired, f" {c.declared[c.metric].unit}".rstrip()
    spread = interval(result.low, result.high, c.margin)
    size = " ".join(filter(None, [f"{number(result.mean, sign=True)}{measure}", spread]))
    at = f" (at {row.setting})" if row.setting else ""
    if row.verdict.word == "undecided":
        told = f"{row.label}{at} against {c.baseline}{c.when}: undecided, {size}."
        return " ".join([told, *_how_far(c, row), *_on_other_texts(c, row)])
    relation = {"better": "better than", "worse": "worse than", "equivalent": "equivalent to"}[row.verdict.word]
    both = ", but equivalent" if row.verdict.equivalent and row.verdict.word != "equivalent" else ""
    p = result.p_equivalence if row.verdict.word == "equivalent" else result.p
    of_what = " of equivalence" if row.verdict.word == "equivalent" else ""
    p_told = "" if math.isnan(p) else f", p{of_what} {p_value(p) if p < 1e-4 else f'= {p_value(p)}'}"
    limits = row.verdict.text.partition(" (")[2].rstrip(")")
    told = f"{row.label}{at} is {relation} {c.baseline}{c.when}{both}: {size}{p_told}"
    return " ".join([told + (f" ({limits})." if limits else "."), *_elsewhere(c, row), *_on_other_texts(c, row)])


def _on_other_texts(c: Comparison, row: Row) -> list[str]:
    """The interval that a paired bootstrap gives for a metric of the whole corpus."""
    found = c.noises.get(row.label, {}).get(c.metric)
    if found is None or not found.of_corpus:
        return []
    told = interval(found.documents.low, found.documents.high, c.margin)
    return [f"A paired bootstrap over the {found.units:,} {c.unit}s of test, with these seeds, gives {told}."]


def _how_far(c: Comparison, row: Row) -> list[str]:
    assert row.paired is not None
    if c.growing is not None and row.paired.spread:
        stood = row.verdict.text.partition(" (")[2].rstrip(")")
        return [f"It stands at {stood}."] if stood else []
    if row.paired.n < 2:
        return ["One seed cannot separate a loss from luck."]
    if not row.paired.spread:
        reason = row.verdict.text.partition(f"{NO_SPREAD}: ")[2].rstrip(")")
        return [f"There is {NO_SPREAD}, and so no interval and no p: {reason}"]
    found = [f"With this spread, {row.paired.n} seeds can find a difference of about {row.paired.detectable:.4f}."]
    return [*found, more_seeds(row)]


def _elsewhere(c: Comparison, row: Row) -> list[str]:
    """Whether it holds on the raw number and on top-1."""
    holds: list[str] = []
    differs: dict[str, list[str]] = {}
    for metric, rows in c.checked.items():
        other = next(r for r in rows if r.label == row.label)
        if other.verdict.word == row.verdict.word or (row.verdict.word == "equivalent" and other.verdict.equivalent):
            holds.append(metric)
        elif other.paired is not None:
            differs.setdefault(other.verdict.word, []).append(metric)
    found = [f"It holds on {' and '.join(holds)}."] if holds else []
    told = [f"{word} on {' and '.join(metrics)}" for word, metrics in differs.items()]
    return found + ([f"But it is {', and '.join(told)}."] if differs else [])
