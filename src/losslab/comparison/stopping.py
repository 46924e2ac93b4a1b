"""Caveats about callbacks: runs that one ended early, that cannot be repeated, or whose weights are averages."""

from __future__ import annotations

from collections.abc import Sequence

from losslab.comparison.runs.contenders import Contender
from losslab.comparison.runs.run import Run

_NAMED = 4
"""Runs that a sentence lists at most."""


def stopping_caveats(contenders: Sequence[Contender]) -> list[str]:
    """A sentence for each kind of run that is compared as it is, and not as its budget says."""
    runs = [(f"{c.label} seed {seed}", run) for c in contenders for seed, run in sorted(c.runs.items())]
    return [*_stopped(runs), *_not_repeatable(runs), *_averaged(contenders)]


def _stopped(runs: Sequence[tuple[str, Run]]) -> list[str]:
    told = []
    for name, run in runs:
        if stopped := run.record.stopped:
            told.append(f"{name} after step {stopped['step']:,} of {run.record.max_steps:,} ({stopped['by']})")
    if not told:
        return []
    return [
        f"{len(told)} of {len(runs)} runs were ended by a callback before their budget: {some(told)}; each is compared "
        "at what it reached, and pairs may be of unequal length"
    ]


def _not_repeatable(runs: Sequence[tuple[str, Run]]) -> list[str]:
    told = [name for name, run in runs if run.record.provenance.get("not_repeatable")]
    if not told:
        return []
    return [f"{len(told)} of {len(runs)} runs went by a clock and cannot be repeated bit for bit: {some(told)}"]


def _averaged(contenders: Sequence[Contender]) -> list[str]:
    averaged = [c.label for c in contenders if any(_is_averaged(run) for run in c.runs.values())]
    if not averaged:
        return []
    others = "" if len(averaged) == len(contenders) else "; those of the others are not"
    return [f"the weights of {some(averaged)} are averages that a callback put in their place{others}"]


def _is_averaged(run: Run) -> bool:
    return run.record.provenance.get("weights") == "averaged"


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
