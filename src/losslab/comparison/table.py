"""The table: a row for each loss, for people and for spreadsheets."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import mean, stdev

from losslab.comparison.load import Group
from losslab.comparison.statistics import Paired, holm, paired, verdict
from losslab.config.nearest import nearest
from losslab.errors import UserError

HIGHER_IS_BETTER = frozenset({"top1"})
ONE_LEARNING_RATE = "one learning rate for all losses: this ranks settings, not losses"


@dataclass(frozen=True)
class Row:
    """One loss under one setting."""

    label: str
    n: int
    mean: float
    std: float
    """Over seeds, with n − 1; NaN with one."""
    paired: Paired | None
    """Against the baseline; None for the baseline itself, and without a shared seed."""
    p_adjusted: float
    verdict: str


def make_rows(groups: list[Group], *, baseline: str, metric: str) -> list[Row]:
    """Rows in the order of their means, best first.

    Raises:
        UserError: when there is no such baseline, or no run has the metric.
    """
    values = {group.label: _values(group, metric) for group in groups}
    if not any(values.values()):
        best = [run.record.yardsticks.get("best", {}) for group in groups for run in group.runs.values()]
        if any(metric in yardsticks for yardsticks in best):
            raise UserError(f"{metric} is not finite in any of these runs; choose another --metric")
        known = {key for yardsticks in best for key, value in yardsticks.items() if value is not None} - {"step"}
        if not known:
            states = "; ".join(f"{g.label}: {count} {s}" for g in groups for s, count in sorted(g.others.items()))
            over = all(status == "diverged" for group in groups for status in group.others)
            then = "diverged runs are results, and stay" if over else "the command that started them continues them"
            raise UserError(f"no run is completed yet ({states}); {then}")
        hint = f"did you mean 'test/{metric}'?" if f"test/{metric}" in known else nearest(metric, known)
        raise UserError(f"no run has the metric {metric!r}: {hint}")
    references = _baselines(groups, baseline)
    results: dict[str, Paired] = {}
    for group in groups:
        reference = references.get(group.context)
        if reference is None or reference is group:
            continue
        shared = sorted(values[group.label].keys() & values[reference.label].keys())
        if shared:
            results[group.label] = paired([values[group.label][s] - values[reference.label][s] for s in shared])
    adjusted = dict(zip(results, holm([result.p_t for result in results.values()]), strict=True))
    higher = metric.rpartition("/")[2] in HIGHER_IS_BETTER
    rows = []
    for group in groups:
        own = list(values[group.label].values())
        if not own:
            continue
        result = results.get(group.label)
        is_baseline = references.get(group.context) is group
        if result is not None:
            word = verdict(result, adjusted[group.label], higher_is_better=higher)
        else:
            word = "baseline" if is_baseline else "no shared seed with a baseline of the same setting"
        rows.append(
            Row(
                label=group.label,
                n=len(own),
                mean=mean(own),
                std=stdev(own) if len(own) > 1 else math.nan,
                paired=result,
                p_adjusted=adjusted.get(group.label, math.nan),
                verdict=word,
            )
        )
    return sorted(rows, key=lambda row: -row.mean if higher else row.mean)


def notes(groups: list[Group], *, baseline: str, metric: str) -> list[str]:
    """What a reader of the table must know, a sentence each."""
    found = []
    rates = {repr(run.settings.get("optimizer.lr")) for group in groups for run in group.runs.values()}
    if len(rates) == 1 and len(groups) > 1:
        found.append(ONE_LEARNING_RATE)
    for group in groups:
        if group.others:
            counts = ", ".join(f"{count} {status}" for status, count in sorted(group.others.items()))
            found.append(f"{group.label}: {counts}, not in these means")
        if group.repeated:
            found.append(f"{group.label}: of repeated runs the newest counts ({group.repeated} older left out)")
    found += _unequal_starts(groups, baseline)
    found += _unequal_origins(groups)
    for group in groups:
        without = sorted(group.runs.keys() - _values(group, metric).keys())
        if without:
            found.append(f"{group.label}: no {metric} (missing or not finite) for seed {', '.join(map(str, without))}")
    seeds = {group.label: set(group.runs) for group in groups}
    every = set().union(*seeds.values())
    found += [
        f"{label}: no completed run for seed {', '.join(map(str, sorted(every - own)))}; means over unequal seeds "
        "are not comparable, the differences are"
        for label, own in seeds.items()
        if own and every - own
    ]
    return found


def to_markdown(rows: list[Row], metric: str) -> str:
    """An aligned Markdown table."""
    header = ["loss", "n", f"{metric}", "std", "difference [95% interval]", "p (Holm)", "verdict"]
    body = [header]
    for row in rows:
        result = row.paired
        difference = "" if result is None else f"{result.mean:+.4f}"
        if result is not None and not math.isnan(result.low):
            difference += f" [{result.low:+.4f}, {result.high:+.4f}]"
        body.append(
            [
                row.label,
                str(row.n),
                f"{row.mean:.4f}",
                _number(row.std),
                difference,
                _number(row.p_adjusted),
                row.verdict,
            ]
        )
    widths = [max(len(line[i]) for line in body) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in body
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def to_csv(rows: list[Row], metric: str) -> str:
    """One line a loss, full precision; empty where there is nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [
        "loss",
        "metric",
        "n",
        "mean",
        "std",
        "pairs",
        "difference",
        "low",
        "high",
        "p_t",
        "p_holm",
        "p_sign_flip",
        "verdict",
    ]
    writer.writerow(columns)
    for row in rows:
        r = row.paired
        paired_part = [""] * 5 if r is None else [r.n, r.mean, r.low, r.high, r.p_t]
        flip = "" if r is None else r.p_sign_flip
        cells = [row.label, metric, row.n, row.mean, row.std, *paired_part, row.p_adjusted, flip, row.verdict]
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells])
    return out.getvalue()


def _values(group: Group, metric: str) -> dict[int, float]:
    """Seed → the metric at the best checkpoint."""
    if metric == "step":  # where the best checkpoint was, no measure of it
        return {}
    found = {seed: run.record.yardsticks.get("best", {}).get(metric) for seed, run in group.runs.items()}
    return {seed: value for seed, value in sorted(found.items()) if value is not None}


def _baselines(groups: list[Group], baseline: str) -> dict[tuple[tuple[str, object], ...], Group]:
    """The baseline's group in each setting; named by its loss, or by its whole label."""
    exact = [group for group in groups if group.label == baseline]
    named = exact or [group for group in groups if group.loss == baseline]
    if not named:
        raise UserError(
            f"there is no baseline {baseline!r} among these runs; choose --baseline from "
            + ", ".join(repr(group.label) for group in groups)
        )
    by_context: dict[tuple[tuple[str, object], ...], Group] = {}
    for group in named:
        if group.context in by_context:
            labels = ", ".join(repr(g.label) for g in named)
            raise UserError(f"several settings are called {baseline!r}; choose one with --baseline from {labels}")
        by_context[group.context] = group
    return by_context


def _unequal_starts(groups: list[Group], baseline: str) -> list[str]:
    """Pairs whose initial weights or batches are not the same are no pairs."""
    found = []
    for context, reference in _baselines(groups, baseline).items():
        for group in groups:
            if group.context != context:
                continue
            for seed in sorted(group.runs.keys() & reference.runs.keys()):
                own, other = group.runs[seed].record.hashes, reference.runs[seed].record.hashes
                unequal = [key for key in ("backbone_init", "batches") if own.get(key) != other.get(key)]
                if unequal:
                    found.append(f"{group.label}, seed {seed}: {' and '.join(unequal)} differ from the baseline's")
    return found


def _unequal_origins(groups: list[Group]) -> list[str]:
    """What the compared runs were made with, where it is not one and the same."""
    records = [run.record for group in groups for run in group.runs.values()]
    origins: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        own = {str(run.record.hashes.get("own_code")) for run in group.runs.values()}
        if len(own) > 1:
            origins[f"own code of {group.label}"] = own
    for record in records:
        origins["code of losslab"].add(str(record.hashes.get("code")))
        origins["device"].add(str(record.hardware.get("device_name") or record.hardware.get("device")))
        for package, version in record.versions.items():
            origins[f"version of {package}"].add(version)
    unequal = [name for name, values in origins.items() if len(values) > 1]
    found = [f"these runs differ in the {', '.join(unequal)}: see each run.json"] if unequal else []
    changed = [record for record in records if record.provenance.get("changes")]
    if changed:
        found.append(f"{len(changed)} run(s) were continued with other code or versions than they began with")
    return found


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
