"""Seeds that were added by hand, batch after batch, and what a look in between does to a p."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from losslab.comparison.rows import pairs_of
from losslab.comparison.runs.contenders import Contender, Setting
from losslab.comparison.runs.run import Run
from losslab.comparison.simultaneous import LEVEL, sidak
from losslab.comparison.stopping import some
from losslab.sequential.looks import error_of_looks
from losslab.sequential.t_paths import FIRST

PAUSE = 60.0
"""Seconds without a run after which another command began a new batch: nobody reads a table and types the next command
in less, and a loop over seeds waits for less."""
Batches = tuple[int, ...]
"""Numbers of pairs after each batch of seeds."""


def grown_caveats(contenders: Sequence[Contender], baselines: dict[Setting, Contender]) -> list[str]:
    """A sentence where seeds were added in batches: looked at in between, each gives a p another chance."""
    batches = {
        c.label: batches_of(c, reference)
        for c in contenders
        if (reference := baselines.get(c.stratum)) is not None and reference is not c
    }
    grown: dict[Batches, list[str]] = defaultdict(list)
    for label, own in batches.items():
        if len(own) > 1:
            grown[own].append(label)
    if not grown:
        return []
    told = [_told(own, labels if len(labels) < len(batches) else []) for own, labels in grown.items()]
    error = inflated([own for own in batches.values() if own])
    return [
        f"seeds were added in batches ({'; '.join(told)}) by later commands: if you looked in between, and would have "
        f"stopped at a result, a p (adjusted) of {LEVEL:g} stands for up to {error:.2g}, and intervals miss as often; "
        "seed=auto, under another name=… and from seeds that are new (first_seed=…), has no such error "
        "(docs/stopping.md)"
    ]


def _told(own: Batches, labels: Sequence[str]) -> str:
    counts = " + ".join(str(later - earlier) for earlier, later in zip((0, *own), own, strict=False))
    return f"{some(labels)}: {counts}" if labels else counts


def inflated(batches: Sequence[Batches]) -> float:
    """The probability that a table of these comparisons, looked at after each batch, shows a difference that is none.
    Independent comparisons reach it; those that share a baseline stay below (Šidák 1967, doi
    10.1080/01621459.1967.10482935)."""
    level = sidak(len(batches)).level
    looks = [[n for n in own if n >= FIRST] for own in batches]
    return -math.expm1(sum(math.log1p(-error_of_looks(own, level=level)) for own in looks if own))


def batches_of(contender: Contender, reference: Contender) -> Batches:
    """Numbers of pairs with the baseline after each batch of its seeds; empty where a record lacks its times.

    A batch begins with a pair that another command began after all pairs before it had ended, and a pause.
    """
    spans = []
    for seed in pairs_of(contender, reference):
        later = max((contender.runs[seed], reference.runs[seed]), key=_started)
        ends = max(_time(run, "updated") for run in (contender.runs[seed], reference.runs[seed]))
        spans.append((_started(later), ends, later.record.provenance.get("command")))
    if not spans or any(math.isnan(began) or math.isnan(ended) for began, ended, _ in spans):
        return ()
    found: list[int] = []
    ended, commands = math.inf, set()
    for count, (began, end, command) in enumerate(sorted(spans, key=lambda span: span[:2])):
        if count and began > ended + PAUSE and command not in commands:
            found.append(count)
        ended = end if not count else max(ended, end)
        commands.add(command)
    return (*found, len(spans))


def _started(run: Run) -> float:
    return _time(run, "started")


def _time(run: Run, key: str) -> float:
    """Seconds of a record's time; NaN where it has none."""
    try:
        return datetime.fromisoformat(str(run.record.timing.get(key))).timestamp()
    except ValueError:
        return math.nan
