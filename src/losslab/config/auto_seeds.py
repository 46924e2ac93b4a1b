"""Words of a multirun that adds seeds by itself: seed=auto max_seeds=40 decide=0.01. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from losslab.config.words import bare
from losslab.errors import UserError

AUTO = "seed=auto"
NAMES = ("max_seeds", "decide", "baseline", "first_seed")
"""Words beside it, which are no keys of a run."""
_NEEDED = {
    "max_seeds": "40, the number of seeds at which it ends in any case",
    "decide": "0.01, the difference below which two losses count as equal",
}
_MOST = 2**31 - 1


@dataclass(frozen=True)
class AutoSeeds:
    """The rule by which seeds are added, as it was typed."""

    max_seeds: int
    margin: float
    """Difference below which two losses count as equal."""
    baseline: str
    """A loss's name or label; empty: cross_entropy where it is listed, or the first loss."""
    first_seed: int


def is_auto_word(word: str) -> bool:
    """Whether a word belongs to the rule, and to no run."""
    key = bare(word.partition("=")[0])
    return key in NAMES or (key == "seed" and "auto" in word.partition("=")[2].split(","))


def refuse_auto_words(words: Sequence[str], way_out: str) -> None:
    """Raises UserError where one of the words is about adding seeds."""
    for word in words:
        if is_auto_word(word):
            raise UserError(f"{word} is about {way_out}")


def read_auto_seeds(typed: Mapping[str, str]) -> AutoSeeds | None:
    """The rule that these words give; None where there is none.

    Args:
        typed: key → value, of `seed` and NAMES.

    Raises:
        UserError: for words that are missing, or that make no rule.
    """
    if "auto" not in typed.get("seed", "").split(","):
        for name in (name for name in NAMES if name in typed):
            raise UserError(f"{name}={typed[name]} goes with seed=auto, which adds seeds until every loss is decided")
        return None
    if typed["seed"] != "auto":
        raise UserError(f"seed={typed['seed']}: seed=auto adds every seed itself: leave the others out")
    if missing := [f"{name}={meaning}" for name, meaning in _NEEDED.items() if name not in typed]:
        raise UserError(f"seed=auto needs {', and '.join(missing)}")
    return AutoSeeds(
        max_seeds=_whole("max_seeds", typed["max_seeds"]),
        margin=_margin(typed["decide"]),
        baseline=typed.get("baseline", ""),
        first_seed=_whole("first_seed", typed.get("first_seed", "1")),
    )


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST):
        raise UserError(f"{name} must be one whole number from 0 to {_MOST}, not {text!r}")
    return int(text)


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = math.nan
    if not (math.isfinite(margin) and margin > 0):
        raise UserError(f"decide must be one number above 0, in the unit of the metric, not {text!r}")
    return margin
