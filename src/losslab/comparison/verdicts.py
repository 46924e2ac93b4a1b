"""Verdicts that a table's intervals allow."""

from __future__ import annotations

from dataclasses import dataclass

from losslab.comparison.simultaneous import Estimate, excludes_zero, is_inside
from losslab.comparison.statistics import SEEDS_FOR_A_CLAIM

NO_SPREAD = "no spread"


@dataclass(frozen=True)
class Verdict:
    """Better or worse if and only if the simultaneous interval excludes zero; equivalent if and only if it lies inside
    ±margin. Both may hold at once: a difference that is certain, and too small to matter."""

    word: str
    """better, worse, equivalent or undecided (better or worse where both hold); or what keeps the loss from being
    compared."""
    text: str
    """The same for people, with its limits."""
    equivalent: bool = False


def judge(result: Estimate, *, higher_is_better: bool, margin: float | None, lost: str = "") -> Verdict:
    """The verdict on a loss; below six seeds the same rule gives a hint.

    Args:
        lost: which runs have no result, so that the word is about the others alone.
    """
    if not result.spread:
        return Verdict("undecided", f"undecided ({NO_SPREAD}: {_without_spread(result.mean)})")
    same = margin is not None and bool(is_inside(result.low, result.high, margin))
    notes = [f"within ±{margin:g}"] if same else []
    if lost:
        notes.append(f"without those lost: {lost}")
    if result.n < SEEDS_FOR_A_CLAIM:
        notes.append(f"{result.n} seed{'s' * (result.n != 1)}: a hint, not a claim")
    if excludes_zero(result.low, result.high):
        word = "better" if (result.mean > 0) == higher_is_better else "worse"
    elif same:
        word = "equivalent"
    else:
        return Verdict("undecided", "undecided")
    told = f"{word}, but equivalent" if same and word != "equivalent" else word
    return Verdict(word, f"{told} ({'; '.join(notes)})" if notes else told, same)


def _without_spread(mean: float) -> str:
    """The likely reasons for differences that no seed changes."""
    if mean == 0:
        return "equal in every seed; are they the same loss, or is the seed not used?"
    return f"every seed differs by {mean:+.4g}; is the seed used?"
