"""Edits between texts, and the error rates that are made of them: characters and words.

A rate is Σ edits / Σ length of the references, over all texts together; it may exceed 1. White space at the ends of a
text does not count, and words stand between white space (as in the `jiwer` package).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np


class Edits(NamedTuple):
    """Counts of one text, or sums over several."""

    characters: int
    """The fewest characters to be replaced, inserted or left out."""
    of_characters: int
    """Characters of the reference."""
    words: int
    of_words: int


def count_edits(reference: str, hypothesis: str) -> Edits:
    """The edits that turn a hypothesis into its reference."""
    texts = reference.strip(), hypothesis.strip()
    words = reference.split(), hypothesis.split()
    return Edits(distance(*texts), len(texts[0]), distance(*words), len(words[0]))


def distance(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> int:
    """The least number of items to be replaced, inserted or left out between two sequences (Levenshtein 1966)."""
    if not reference or not hypothesis:
        return max(len(reference), len(hypothesis))
    number: dict[Hashable, int] = {}
    rows, columns = (
        np.array([number.setdefault(item, len(number)) for item in items]) for items in (reference, hypothesis)
    )
    along = np.arange(len(columns) + 1)
    found = along
    for i, item in enumerate(rows.tolist(), start=1):
        replaced = np.minimum(found[1:] + 1, found[:-1] + (columns != item))
        found = np.concatenate([[i], replaced])
        found = np.minimum.accumulate(found - along) + along  # items that only the hypothesis has
    return int(found[-1])
