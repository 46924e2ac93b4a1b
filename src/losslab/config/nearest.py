"""The word that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like it, if any is."""
    close = difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)
    return close[0] if close else None


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or a list of what there is."""
    names = sorted(set(known))
    if (meant := closest(word, names)) is not None:
        return f"did you mean {meant!r}?"
    return f"there are {', '.join(names)}" if names else "there are none"
