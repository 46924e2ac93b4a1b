"""Exact match and F1 of answers, by the definition of SQuAD (Rajpurkar et al. 2018, arXiv:1806.03822).

Texts are compared in lower case, without punctuation, articles and further white space. F1 is that of their words, as a
bag. An answer has the best of its values over the answers that people gave. Where there is none, both are 1 for an
empty answer and 0 for another one.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation (ASCII's alone) and articles, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_and_f1(predicted: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1, from 0 to 1.

    Args:
        predicted: empty: no answer.
        answers: that people gave; those of which nothing is left count for nothing, and none at all mean that the
            question has no answer.
    """
    own = normalised(predicted)
    others = [other for other in map(normalised, answers) if other] or [""]
    return float(own in others), max(_f1(own.split(), other.split()) for other in others)


def _f1(own: Sequence[str], other: Sequence[str]) -> float:
    if not own or not other:
        return float(own == other)
    same = sum((Counter(own) & Counter(other)).values())
    return 2 * same / (len(own) + len(other))
