"""Caveats about seeds that are missing, or too few."""

from __future__ import annotations

from collections.abc import Sequence

from losslab.comparison.growing import Growing
from losslab.comparison.metrics import short
from losslab.comparison.rows import Row
from losslab.comparison.runs.contenders import Contender
from losslab.comparison.runs.evaluations import OF_TEXT
from losslab.comparison.runs.run import Run
from losslab.comparison.statistics import SEEDS_FOR_A_CLAIM


def missing_seeds(
    contenders: Sequence[Contender], rows: Sequence[Row], metric: str, growing: Growing | None
) -> list[str]:
    """Sentences on seeds without a value, or without a run that others have."""
    found = []
    values = {row.label: row.values for row in rows}
    for c in contenders:
        lacking = c.runs.keys() - values[c.label].keys()
        without = sorted(seed for seed in lacking if not _unevaluated(c.runs[seed], metric))
        if without:
            told = f"{c.label}: no {metric} (missing or not finite) for seed {', '.join(map(str, without))}"
            found.append(told + ("; this loss has no link in closed form" * (short(metric) == "nll_linked")))
    if growing is not None:
        return [*found, *_stopped_apart(contenders)]
    for stratum in dict.fromkeys(c.stratum for c in contenders):
        own = [c for c in contenders if c.stratum == stratum]
        every = set().union(*(c.runs.keys() for c in own))
        found += [
            f"{c.label}: no completed run for seed {', '.join(map(str, sorted(every - c.runs.keys())))}; means over "
            "unequal seeds are not comparable, the differences are"
            for c in own
            if c.runs and every - c.runs.keys()
        ]
    return found


def _unevaluated(run: Run, metric: str) -> bool:
    """Whether a run has nothing on another text, which was said when its evaluations were read."""
    return metric.startswith(OF_TEXT) and not any(key.startswith(OF_TEXT) for key in run.metrics)


def _stopped_apart(contenders: Sequence[Contender]) -> list[str]:
    counts = {c.label: len(c.runs) for c in contenders if c.runs}
    if len(set(counts.values())) < 2:
        return []
    told = ", ".join(f"{label} {count}" for label, count in counts.items())
    return [
        f"seed=auto gave each loss its own number of seeds ({told}): means over unequal seeds are not comparable, the "
        "differences are"
    ]


def few_seeds(rows: Sequence[Row], contenders: Sequence[Contender]) -> list[str]:
    """A sentence where a loss has too few pairs for a claim."""
    few = sorted({row.paired.n for row in rows if row.paired is not None and row.paired.n < SEEDS_FOR_A_CLAIM})
    if not few:
        return []
    told = " or ".join(map(str, few))
    runs = [run for c in contenders for run in c.tried]
    more = "; under another name=…, seed=auto adds seeds until there is a verdict (docs/stopping.md)"
    if any(run.record.trial for run in runs):  # a study keeps its seeds
        more = "; train the chosen settings with seed=auto, under another name=… (docs/stopping.md)"
    more = "" if all(run.folder is None for run in runs) else more
    return [
        f"{told} shared seed{'s' * (few != [1])}: too few for a claim, because no exact test can reach p < 0.05 with "
        f"fewer than {SEEDS_FOR_A_CLAIM}{more}"
    ]
